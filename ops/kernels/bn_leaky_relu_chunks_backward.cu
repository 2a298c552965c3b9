// Training backward over ROWS of any size in one launch: sums of dy and dy * (x - mean), then
// grad_input.
//   dy = y > 0 ? grad : rn(grad * slope), with y computed again from x
//   grad_input = rn(w * invstd * fma(-f, x - mean, fma(-sum, 1/R, dy)))
#include "bn_leaky_relu_chunks.cuh"

namespace rp_kernels {
namespace {

template <typename scalar_t>
__global__ void __launch_bounds__(CHUNK_THREADS)
    chunks_backward_kernel(const BnLeakyReluBackward p, const ChunkWork work, float reciprocal) {
    // [QUEUE_WORDS][threads], then the slots' sums and dot products, each [CHAINS][channels]
    extern __shared__ uint4 shared[];
    auto *words = reinterpret_cast<QuadWord<scalar_t> *>(shared);
    auto *sums = reinterpret_cast<float *>(words + QUEUE_WORDS * blockDim.x);
    auto *dots = sums + CHAINS * work.rows.channels;
    const Workspace &workspace = work.rows.workspace;
    assume_parameter_type<scalar_t>(p);
    const int block = blockIdx.x;
    const int threads = blockDim.x;
    Channel channels[QUAD];
    const auto column_at = [&](int quad) {
        const ChunkColumn column(work, block, quad);
#pragma unroll
        for (int e = 0; e < QUAD; ++e) {
            channels[e] = channel_in_training(p, column.channel(e));
        }
        return column;
    };
    ChunkQueue<scalar_t, 2> queue(work, block, words, p.input, p.grad_output);
    int quad = threadIdx.x;
    for (; quad < work.quads; quad += threads) {
        reduce_quad<GradientMerge>(
            column_at(quad), queue, reinterpret_cast<float4 *>(sums)[quad],
            reinterpret_cast<float4 *>(dots)[quad],
            [&](float &sum, float &dot, int e, const Quads<2> &x_grad, float) {
                const float centered = center(x_grad.tensor[0][e], channels[e]);
                const float dy = gradient_of_y<scalar_t>(centered, x_grad.tensor[1][e], channels[e],
                                                         p.negative_slope);
                sum = __fadd_rn(sum, dy);
                dot = __fmaf_rn(centered, dy, dot);
            },
            [&](float &sum, float &dot, int e) { // eager mode adds the zero of a missing row
                sum = __fadd_rn(sum, 0.0f);
                dot = __fmaf_rn(center(0.0f, channels[e]), 0.0f, dot);
            });
    }
    reduce_chunks<GradientMerge>(
        sums, dots, work.rows, block, [&](int channel, const Partial &total) {
            workspace.sum[channel] = total.first;
            workspace.dot[channel] = total.second;
            finish_parameters(p, channel, total.first, total.second, p.invstd[channel]);
        });
    queue.turn();
    for (quad -= threads; quad >= 0; quad -= threads) {
        const ChunkColumn column = column_at(quad);
        RowsGradient gradient[QUAD];
#pragma unroll
        for (int e = 0; e < QUAD; ++e) {
            const int channel = column.channel(e);
            gradient[e] = rows_gradient(workspace.sum[channel], workspace.dot[channel],
                                        channels[e].weight, channels[e].invstd, reciprocal);
        }
        transform_quad(column, queue, static_cast<scalar_t *>(p.grad_input),
                       [&](int e, const Quads<2> &x_grad) {
                           const float centered = center(x_grad.tensor[0][e], channels[e]);
                           const float dy = gradient_of_y<scalar_t>(centered, x_grad.tensor[1][e],
                                                                    channels[e], p.negative_slope);
                           return grad_input_rows(centered, dy, gradient[e]);
                       });
    }
}

} // namespace

cudaError_t launch_chunks_backward(const BnLeakyReluBackward &params, cudaStream_t stream) {
    if (!is_aligned(params.input) || !is_aligned(params.grad_output) ||
        !is_aligned(params.grad_input)) {
        return cudaErrorNotSupported;
    }
    const float reciprocal =
        rows_reciprocal(static_cast<int64_t>(params.shape.images) * params.shape.length);
    cudaError_t error = cudaSuccess;
    const cudaError_t launched = for_type(params.shape.data_type, [&](auto type) {
        using scalar_t = decltype(type);
        static ResidentBlocks resident;
        error = launch_chunks<scalar_t>(resident, chunks_backward_kernel<scalar_t>, params, stream,
                                        reciprocal);
    });
    return error == cudaSuccess ? launched : error;
}

} // namespace rp_kernels
