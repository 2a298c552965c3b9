/* Dropout between LSTM layers: output[t][b][h] = keep(t, b, h) ? scale * input[t][b][h] : 0, with
 * the mask of random.h, a function of (seed, step, b, layer, h, t). The step is read on the device,
 * so a captured CUDA graph draws a new mask at each replay. */
#ifndef RP_KERNELS_LSTM_DROPOUT_H
#define RP_KERNELS_LSTM_DROPOUT_H

#include <cuda_runtime_api.h>
#include <stdint.h>

typedef struct rp_lstm_dropout_params {
    const void *input;   /* [T][B][H], device, contiguous, float or double */
    void *output;        /* [T][B][H], device, contiguous, of the same type */
    const int64_t *step; /* [1], device */
    uint64_t seed;
    float probability; /* [0, 1) */
    int32_t layer;     /* whose output is dropped */
    int32_t time_steps, batch, hidden;
    int32_t is_double;
} rp_lstm_dropout_params;

#ifdef __cplusplus
extern "C" {
#endif
cudaError_t rp_launch_lstm_dropout(const rp_lstm_dropout_params *params, cudaStream_t stream);
#ifdef __cplusplus
}
#endif

#endif
