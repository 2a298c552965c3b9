// One warp gathers one row of the batch: its window is T*F consecutive numbers of `features`.
// A row past the end of the epoch becomes NaN, so that a wrong `rows` shows in the loss.
#include "gather_windows.h"

namespace {

constexpr int kWarps = 4;

__global__ void __launch_bounds__(32 * kWarps)
    gather_windows_kernel(const __grid_constant__ rp_gather_windows_params params) {
    const int row = (int)blockIdx.x * kWarps + (int)threadIdx.x / 32;
    const int lane = (int)threadIdx.x % 32;
    if (row >= params.rows) {
        return;
    }
    const int64_t window =
        rp_step_window(params.seed, *params.step, row, params.windows, params.batch);
    const float nan = __int_as_float(0x7fffffff);
    const int64_t end = window < 0 ? 0 : params.window_ends[window];
    const int count = params.time_steps * params.features_per_row;
    const float *source = params.features + (end + 1 - params.time_steps) * params.features_per_row;
    for (int i = lane; i < count; i += 32) {
        const int time = i / params.features_per_row;
        const int feature = i % params.features_per_row;
        params.x[((int64_t)time * params.rows + row) * params.features_per_row + feature] =
            window < 0 ? nan : source[i];
    }
    if (lane == 0) {
        params.y[row] = window < 0 ? nan : params.targets[end];
    }
}

} // namespace

cudaError_t rp_launch_gather_windows(const rp_gather_windows_params *params, cudaStream_t stream) {
    if (params->rows == 0) {
        return cudaSuccess;
    }
    const unsigned blocks = (unsigned)((params->rows + kWarps - 1) / kWarps);
    gather_windows_kernel<<<blocks, 32 * kWarps, 0, stream>>>(*params);
    return cudaGetLastError();
}
