/* The batch of one optimiser step, gathered by index: row r of step s is window
 * rp_order((s % steps_per_epoch) * batch + r, key(W, seed, s / steps_per_epoch)). The step is read
 * on the device, so a captured CUDA graph moves on to the next batch at each replay. */
#ifndef RP_KERNELS_GATHER_WINDOWS_H
#define RP_KERNELS_GATHER_WINDOWS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "random.h"

typedef struct rp_gather_windows_params {
    const float *features;      /* [N][F], device */
    const float *targets;       /* [N], device */
    const int32_t *window_ends; /* [W], device, each in [T-1, N) */
    const int64_t *step;        /* [1], device */
    float *x;                   /* [T][rows][F], device, output */
    float *y;                   /* [rows], device, output */
    uint64_t seed;
    int64_t windows; /* W, below 2^32 */
    int64_t batch;   /* rows of a full batch */
    int32_t rows;    /* of this batch: `batch`, or what the epoch has left */
    int32_t time_steps, features_per_row;
} rp_gather_windows_params;

/* Index into window_ends of row `row` of step `step`, or -1 past the end of the epoch. */
RP_HOST_DEVICE int64_t rp_step_window(uint64_t seed, int64_t step, int64_t row, int64_t windows,
                                      int64_t batch) {
    const int64_t steps_per_epoch = rp_steps_per_epoch(windows, batch);
    const int64_t position = step % steps_per_epoch * batch + row;
    if (position >= windows) {
        return -1;
    }
    const rp_order_key key =
        rp_order_key_make((uint32_t)windows, seed, (uint32_t)(step / steps_per_epoch));
    return rp_order((uint32_t)position, &key);
}

#ifdef __cplusplus
extern "C" {
#endif
cudaError_t rp_launch_gather_windows(const rp_gather_windows_params *params, cudaStream_t stream);
#ifdef __cplusplus
}
#endif

#endif
