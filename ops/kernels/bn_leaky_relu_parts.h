// The parts that the launchers of bn_leaky_relu put together; one source file each.
#pragma once

#include "bn_leaky_relu.h"

namespace rp_kernels {

// Eager mode's virtual grid over the rows of a ROWS reduction. Chain t of blocks * block_rows takes
// rows t, t + chains, ...; four slots of a chain take them in turn.
struct RowGrid {
    int block_rows; // chains of one block: a power of two, up to 512
    int blocks;     // 1, or 8 ... 128
};

RowGrid row_grid(int64_t rows, int channels);

// Scratch memory: the blocks' partial results, then the sums of each channel.
struct Workspace {
    float2 *partials; // [channels][blocks]
    float *sum;       // [channels], sum of dy
    float *dot;       // [channels], sum of dy * (x - mean)
};

Workspace workspace_of(const BnLeakyReluShape &shape, void *memory);

// Statistics of every channel: mean, invstd, and the running statistics.
cudaError_t launch_rows_statistics(const BnLeakyReluForward &params, cudaStream_t stream);
cudaError_t launch_planes_statistics(const BnLeakyReluForward &params, cudaStream_t stream);

// Sums of every channel: workspace.sum and .dot, grad_weight, grad_bias.
cudaError_t launch_rows_sums(const BnLeakyReluBackward &params, cudaStream_t stream);
cudaError_t launch_planes_sums(const BnLeakyReluBackward &params, cudaStream_t stream);

// Element by element, from finished statistics and sums.
cudaError_t launch_elementwise_forward(const BnLeakyReluForward &params, cudaStream_t stream);
cudaError_t launch_elementwise_backward(const BnLeakyReluBackward &params, cudaStream_t stream);

// One launch for everything, in training. They return cudaErrorNotSupported, having done nothing,
// for shapes, alignments and GPUs that they aren't made for.
cudaError_t launch_rows_forward(const BnLeakyReluForward &params, cudaStream_t stream);
cudaError_t launch_rows_backward(const BnLeakyReluBackward &params, cudaStream_t stream);
cudaError_t launch_chunks_forward(const BnLeakyReluForward &params, cudaStream_t stream);
cudaError_t launch_chunks_backward(const BnLeakyReluBackward &params, cudaStream_t stream);
cudaError_t launch_planes_forward(const BnLeakyReluForward &params, cudaStream_t stream);
cudaError_t launch_planes_backward(const BnLeakyReluBackward &params, cudaStream_t stream);

} // namespace rp_kernels
