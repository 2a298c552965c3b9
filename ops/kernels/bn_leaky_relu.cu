// Chooses the kernels of one call: a single launch where there is one for the shape, else a
// reduction followed by an elementwise pass.
#include "bn_leaky_relu.h"

#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"

#include <algorithm>

namespace rp_kernels {
namespace {

constexpr int THREADS = 512;      // of eager mode's blocks
constexpr int ROWS_A_THREAD = 16; // at least
constexpr int MAXIMUM_BLOCKS = 128;
constexpr int MINIMUM_BLOCKS = 8; // fewer become one

int64_t power_of_two_below(int64_t n) {
    int64_t power = 1;
    while (power * 2 <= n) {
        power *= 2;
    }
    return power;
}

int64_t rows_of(const BnLeakyReluShape &shape) {
    return static_cast<int64_t>(shape.images) * shape.length;
}

} // namespace

RowGrid row_grid(int64_t rows, int channels) {
    const int64_t block_channels = std::min<int64_t>(power_of_two_below(channels), 32);
    const int64_t block_rows = std::min<int64_t>(power_of_two_below(divide_up(rows, ROWS_A_THREAD)),
                                                 THREADS / block_channels);
    const int64_t blocks =
        std::min<int64_t>(divide_up(rows, ROWS_A_THREAD * block_rows), MAXIMUM_BLOCKS);
    return {static_cast<int>(block_rows), static_cast<int>(blocks < MINIMUM_BLOCKS ? 1 : blocks)};
}

Workspace workspace_of(const BnLeakyReluShape &shape, void *memory) {
    float2 *partials = static_cast<float2 *>(memory);
    float *sums =
        reinterpret_cast<float *>(partials + static_cast<size_t>(shape.channels) *
                                                 row_grid(rows_of(shape), shape.channels).blocks);
    return {partials, sums, sums + shape.channels};
}

size_t bn_leaky_relu_workspace(const BnLeakyReluShape &shape) {
    const size_t blocks = row_grid(rows_of(shape), shape.channels).blocks;
    return shape.channels * (blocks * sizeof(float2) + 2 * sizeof(float));
}

cudaError_t launch_bn_leaky_relu_forward(const BnLeakyReluForward &params, cudaStream_t stream) {
    if (!params.training) {
        return launch_elementwise_forward(params, stream);
    }
    const bool rows = params.shape.order == Order::ROWS;
    cudaError_t error =
        rows ? launch_rows_forward(params, stream) : launch_planes_forward(params, stream);
    if (rows && error == cudaErrorNotSupported) {
        error = launch_chunks_forward(params, stream);
    }
    if (error != cudaErrorNotSupported) {
        return error;
    }
    error =
        rows ? launch_rows_statistics(params, stream) : launch_planes_statistics(params, stream);
    return error == cudaSuccess ? launch_elementwise_forward(params, stream) : error;
}

cudaError_t launch_bn_leaky_relu_backward(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const bool rows = params.sum_order == Order::ROWS;
    if (params.training && params.grad_input && params.sum_order == params.shape.order) {
        cudaError_t error =
            rows ? launch_rows_backward(params, stream) : launch_planes_backward(params, stream);
        if (rows && error == cudaErrorNotSupported) {
            error = launch_chunks_backward(params, stream);
        }
        if (error != cudaErrorNotSupported) {
            return error;
        }
    }
    if (params.training || params.grad_weight || params.grad_bias) {
        const cudaError_t error =
            rows ? launch_rows_sums(params, stream) : launch_planes_sums(params, stream);
        if (error != cudaSuccess) {
            return error;
        }
    }
    return params.grad_input ? launch_elementwise_backward(params, stream) : cudaSuccess;
}

} // namespace rp_kernels
