// Training forward over ROWS of any size in one launch: statistics, normalisation, activation.
//   y = fma(invstd, rn((x - mean) * weight), bias); output = y > 0 ? y : rn(y * slope)
#include "bn_leaky_relu_chunks.cuh"

namespace rp_kernels {
namespace {

template <typename scalar_t>
__global__ void __launch_bounds__(CHUNK_THREADS)
    chunks_forward_kernel(const BnLeakyReluForward p, const ChunkWork work, float bessel) {
    // [QUEUE_WORDS][threads], then the slots' means and squares, each [CHAINS][channels]
    extern __shared__ uint4 shared[];
    auto *words = reinterpret_cast<QuadWord<scalar_t> *>(shared);
    auto *means = reinterpret_cast<float *>(words + QUEUE_WORDS * blockDim.x);
    auto *squares = means + CHAINS * work.rows.channels;
    assume_parameter_type<scalar_t>(p);
    const int block = blockIdx.x;
    const int threads = blockDim.x;
    ChunkQueue<scalar_t, 1> queue(work, block, words, p.input);
    int quad = threadIdx.x;
    for (; quad < work.quads; quad += threads) {
        reduce_quad<StatisticsMerge>(
            ChunkColumn(work, block, quad), queue, reinterpret_cast<float4 *>(means)[quad],
            reinterpret_cast<float4 *>(squares)[quad],
            [](float &mean, float &m2, int e, const Quads<1> &x, float reciprocal) {
                welford_rows(mean, m2, x.tensor[0][e], reciprocal);
            },
            [](float &mean, float &m2, int) { welford_rows_past_the_end(mean, m2); });
    }
    reduce_chunks<StatisticsMerge>(
        means, squares, work.rows, block, [&](int channel, const Partial &total) {
            const float variance = __fdiv_rn(total.second, static_cast<float>(work.rows.rows));
            finish_statistics(p, channel, channel_before(p, channel), total.first, variance,
                              bessel);
        });
    queue.turn();
    for (quad -= threads; quad >= 0; quad -= threads) {
        const ChunkColumn column(work, block, quad);
        Channel channels[QUAD];
#pragma unroll
        for (int e = 0; e < QUAD; ++e) {
            channels[e] = channel_in_training(p, column.channel(e));
        }
        transform_quad(
            column, queue, static_cast<scalar_t *>(p.output), [&](int e, const Quads<1> &x) {
                return forward_value<scalar_t>(x.tensor[0][e], channels[e], p.negative_slope);
            });
    }
}

} // namespace

cudaError_t launch_chunks_forward(const BnLeakyReluForward &params, cudaStream_t stream) {
    if (!is_aligned(params.input) || !is_aligned(params.output)) {
        return cudaErrorNotSupported;
    }
    const float bessel =
        bessel_correction(static_cast<int64_t>(params.shape.images) * params.shape.length);
    cudaError_t error = cudaSuccess;
    const cudaError_t launched = for_type(params.shape.data_type, [&](auto type) {
        using scalar_t = decltype(type);
        static ResidentBlocks resident;
        error = launch_chunks<scalar_t>(resident, chunks_forward_kernel<scalar_t>, params, stream,
                                        bessel);
    });
    return error == cudaSuccess ? launched : error;
}

} // namespace rp_kernels
