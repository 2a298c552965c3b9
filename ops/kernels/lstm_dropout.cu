// One thread owns one (row, unit) over one block of eight time steps, which is one Philox block.
#include "lstm_dropout.h"

#include "random.h"

namespace {

constexpr int kThreads = 128;
constexpr int kTimeBlock = 8; // time steps one Philox block decides

template <typename scalar_t>
__global__ void __launch_bounds__(kThreads)
    lstm_dropout_kernel(const __grid_constant__ rp_lstm_dropout_params params) {
    const int64_t cells = (int64_t)params.batch * params.hidden; // of one time step
    const int64_t cell = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (cell >= cells) {
        return;
    }
    const uint32_t threshold = rp_dropout_threshold(params.probability);
    const scalar_t scale = (scalar_t)rp_dropout_scale(threshold);
    const uint32_t keep = rp_dropout_keep_bits(
        rp_dropout_block(params.seed, *params.step, (uint32_t)(cell / params.hidden),
                         (uint32_t)params.layer, (uint32_t)(cell % params.hidden), blockIdx.y),
        threshold);
    const auto *input = static_cast<const scalar_t *>(params.input);
    auto *output = static_cast<scalar_t *>(params.output);
    for (int i = 0; i < kTimeBlock; ++i) {
        const int time = (int)blockIdx.y * kTimeBlock + i;
        if (time < params.time_steps) {
            const int64_t at = time * cells + cell;
            output[at] = keep >> i & 1u ? input[at] * scale : scalar_t(0);
        }
    }
}

} // namespace

cudaError_t rp_launch_lstm_dropout(const rp_lstm_dropout_params *params, cudaStream_t stream) {
    const int64_t cells = (int64_t)params->batch * params->hidden;
    if (cells == 0 || params->time_steps == 0) {
        return cudaSuccess;
    }
    const dim3 grid((unsigned)((cells + kThreads - 1) / kThreads),
                    (unsigned)((params->time_steps + kTimeBlock - 1) / kTimeBlock));
    if (params->is_double) {
        lstm_dropout_kernel<double><<<grid, kThreads, 0, stream>>>(*params);
    } else {
        lstm_dropout_kernel<float><<<grid, kThreads, 0, stream>>>(*params);
    }
    return cudaGetLastError();
}
