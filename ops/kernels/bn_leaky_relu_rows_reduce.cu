// Statistics and sums over the rows of any ROWS shape: eager mode's own mapping, a thread a chain
// with its four slots, a block of chains, a last kernel over the blocks.
#include "bn_leaky_relu_channel.cuh"
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"

#include <algorithm>

namespace rp_kernels {
namespace {

constexpr int SLOTS = 4;
constexpr int MAXIMUM_THREADS = 512;

// Rows of block `block`, of all its chains.
__device__ __forceinline__ int rows_of_block(int rows, int block, int block_rows, int blocks) {
    const int chains = block_rows * blocks;
    const int rest = rows % chains - block * block_rows;
    return rows / chains * block_rows + min(max(rest, 0), block_rows);
}

// Tree over the chains of a block (threadIdx.y); the result is threadIdx.y == 0's.
template <typename Merge> __device__ Partial merge_chains(Partial partial) {
    __shared__ Partial shared[MAXIMUM_THREADS];
    const int here = threadIdx.y * blockDim.x + threadIdx.x;
    for (int offset = blockDim.y / 2; offset > 0; offset /= 2) {
        const bool gives = threadIdx.y >= offset && threadIdx.y < 2 * offset;
        if (gives) {
            shared[here] = partial;
        }
        __syncthreads(); // the upper half has written before the lower half reads
        if (threadIdx.y < offset) {
            partial = Merge::blocks(partial, shared[here + offset * blockDim.x]);
        }
        // The next level writes a quarter that nobody reads in this one: no second barrier.
    }
    return partial;
}

// Adds the value at (row, channel) to slot accumulators; a policy for each direction.
template <typename scalar_t> struct StatisticsStep {
    using Merge = StatisticsMerge;
    const scalar_t *input;

    struct Value {
        float x;
    };
    __device__ Value load(int64_t offset) const { return {Scalar<scalar_t>::widen(input[offset])}; }
    __device__ void add(Partial &slot, const Value &value) const {
        slot.count += 1;
        welford_rows(slot.first, slot.second, value.x, reciprocal_of(slot.count));
    }
    __device__ void past_the_end(Partial &slot) const {
        welford_rows_past_the_end(slot.first, slot.second);
    }
};

template <typename scalar_t> struct SumsStep {
    using Merge = GradientMerge;
    const scalar_t *input;
    const scalar_t *grad_output;
    Channel channel;
    float slope;

    struct Value {
        float x, grad;
    };
    __device__ Value load(int64_t offset) const {
        return {Scalar<scalar_t>::widen(input[offset]),
                Scalar<scalar_t>::widen(grad_output[offset])};
    }
    __device__ void add(Partial &slot, const Value &value) const {
        const float centered = center(value.x, channel);
        const float dy = gradient_of_y<scalar_t>(centered, value.grad, channel, slope);
        slot.first = __fadd_rn(slot.first, dy);
        slot.second = __fmaf_rn(centered, dy, slot.second);
    }
    // Eager mode adds the zero of a missing row.
    __device__ void past_the_end(Partial &slot) const {
        slot.first = __fadd_rn(slot.first, 0.0f);
        slot.second = __fmaf_rn(__fadd_rn(0.0f, -channel.mean), 0.0f, slot.second);
    }
};

// One channel's chain of this thread, its four slots merged.
template <typename Step>
__device__ Partial reduce_chain(const Step &step, int rows, int channels, int channel) {
    const int chains = blockDim.y * gridDim.y;
    const int first = blockIdx.y * blockDim.y + threadIdx.y;
    const int trips = 1 + (rows - 1) / (SLOTS * chains);
    Partial slot[SLOTS] = {};
    for (int trip = 0; trip < trips; ++trip) {
        const int row = first + SLOTS * chains * trip;
        typename Step::Value value[SLOTS];
#pragma unroll
        for (int s = 0; s < SLOTS; ++s) {
            if (row + s * chains < rows) {
                value[s] = step.load(static_cast<int64_t>(row + s * chains) * channels + channel);
            }
        }
#pragma unroll
        for (int s = 0; s < SLOTS; ++s) {
            if (row + s * chains < rows) {
                step.add(slot[s], value[s]);
            } else {
                step.past_the_end(slot[s]);
            }
        }
    }
#pragma unroll
    for (int s = 1; s < SLOTS; ++s) {
        slot[0] = Step::Merge::slots(slot[0], slot[s]);
    }
    return slot[0];
}

struct RowsReduction {
    int rows, channels;
    RowGrid grid;
    float2 *partials; // [channels][blocks], device
};

__device__ void finish_channel(const BnLeakyReluForward &p, const RowsReduction &r, int channel,
                               const Partial &total, float bessel) {
    const float variance = __fdiv_rn(total.second, static_cast<float>(r.rows));
    finish_statistics(p, channel, channel_before(p, channel), total.first, variance, bessel);
}

__device__ void finish_channel(const BnLeakyReluBackward &p, const RowsReduction &r, int channel,
                               const Partial &total, const Workspace &workspace) {
    workspace.sum[channel] = total.first;
    workspace.dot[channel] = total.second;
    finish_parameters(p, channel, total.first, total.second, channel_of(p, channel).invstd);
}

template <typename Step, typename Params, typename Extra>
__device__ void reduce_rows(const Step &step, const Params &p, const RowsReduction &r,
                            const Extra &extra, int channel) {
    Partial partial = {};
    if (channel < r.channels) {
        partial = reduce_chain(step, r.rows, r.channels, channel);
    }
    partial = merge_chains<typename Step::Merge>(partial);
    if (channel < r.channels && threadIdx.y == 0) {
        if (gridDim.y == 1) {
            finish_channel(p, r, channel, partial, extra);
        } else {
            r.partials[static_cast<int64_t>(channel) * gridDim.y + blockIdx.y] =
                make_float2(partial.first, partial.second);
        }
    }
}

// mean and m2 of every (channel, block): blocks of (channels, chains), grid (channels, blocks).
template <typename scalar_t>
__global__ void __launch_bounds__(MAXIMUM_THREADS)
    rows_statistics_kernel(const BnLeakyReluForward p, const RowsReduction r, float bessel) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    const StatisticsStep<scalar_t> step = {static_cast<const scalar_t *>(p.input)};
    reduce_rows(step, p, r, bessel, channel);
}

// sum of dy and of dy * (x - mean) of every (channel, block); the same grid.
template <typename scalar_t>
__global__ void __launch_bounds__(MAXIMUM_THREADS)
    rows_sums_kernel(const BnLeakyReluBackward p, const RowsReduction r,
                     const Workspace workspace) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    const Channel parameters = channel_of(p, min(channel, r.channels - 1));
    const SumsStep<scalar_t> step = {static_cast<const scalar_t *>(p.input),
                                     static_cast<const scalar_t *>(p.grad_output), parameters,
                                     p.negative_slope};
    reduce_rows(step, p, r, workspace, channel);
}

// The blocks of each channel: chain y starts empty and takes blocks y, y + block_rows, ...
template <typename Merge, typename Params, typename Extra>
__global__ void __launch_bounds__(MAXIMUM_THREADS)
    rows_finish_kernel(const Params p, const RowsReduction r, const Extra extra) {
    const int channel = blockIdx.x * blockDim.x + threadIdx.x;
    Partial total = {};
    for (int block = threadIdx.y; channel < r.channels && block < r.grid.blocks;
         block += blockDim.y) {
        const float2 part = r.partials[static_cast<int64_t>(channel) * r.grid.blocks + block];
        const int count = rows_of_block(r.rows, block, r.grid.block_rows, r.grid.blocks);
        total = Merge::blocks(total, {count, part.x, part.y});
    }
    total = merge_chains<Merge>(total);
    if (channel < r.channels && threadIdx.y == 0) {
        finish_channel(p, r, channel, total, extra);
    }
}

RowsReduction rows_reduction(const BnLeakyReluShape &shape, const Workspace &workspace) {
    const int rows = shape.images * shape.length;
    return {rows, shape.channels, row_grid(rows, shape.channels), workspace.partials};
}

// Threads of a block: (channels, chains).
dim3 reduction_block(const RowsReduction &r) {
    int columns = 1;
    while (columns * 2 <= std::min(r.channels, MAXIMUM_THREADS / r.grid.block_rows)) {
        columns *= 2;
    }
    return dim3(std::min(columns, 32), r.grid.block_rows);
}

} // namespace

cudaError_t launch_rows_statistics(const BnLeakyReluForward &params, cudaStream_t stream) {
    const RowsReduction r =
        rows_reduction(params.shape, workspace_of(params.shape, params.workspace));
    const dim3 block = reduction_block(r);
    const unsigned columns = (r.channels + block.x - 1) / block.x;
    const float bessel = bessel_correction(r.rows);
    const cudaError_t error = for_type(params.shape.data_type, [&](auto type) {
        rows_statistics_kernel<decltype(type)>
            <<<dim3(columns, r.grid.blocks), block, 0, stream>>>(params, r, bessel);
    });
    if (error != cudaSuccess || r.grid.blocks == 1) {
        return error;
    }
    rows_finish_kernel<StatisticsMerge><<<columns, block, 0, stream>>>(params, r, bessel);
    return cudaGetLastError();
}

cudaError_t launch_rows_sums(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const Workspace workspace = workspace_of(params.shape, params.workspace);
    const RowsReduction r = rows_reduction(params.shape, workspace);
    const dim3 block = reduction_block(r);
    const unsigned columns = (r.channels + block.x - 1) / block.x;
    const cudaError_t error = for_type(params.shape.data_type, [&](auto type) {
        rows_sums_kernel<decltype(type)>
            <<<dim3(columns, r.grid.blocks), block, 0, stream>>>(params, r, workspace);
    });
    if (error != cudaSuccess || r.grid.blocks == 1) {
        return error;
    }
    rows_finish_kernel<GradientMerge><<<columns, block, 0, stream>>>(params, r, workspace);
    return cudaGetLastError();
}

} // namespace rp_kernels
