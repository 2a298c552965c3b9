// Training forward over ROWS in one launch: statistics, normalisation, activation.
//   y = fma(invstd, rn((x - mean) * weight), bias); output = y > 0 ? y : rn(y * slope)
//
// Policy: x is read once where it fits on the chip; the rows that did not fit are read again newest
// first, because those are the ones still in L2.
#include "bn_leaky_relu_rows_launch.cuh"

namespace rp_kernels {
namespace {

template <typename scalar_t, typename Variant>
__global__ void __launch_bounds__(RowTile<scalar_t, Variant::TILE>::THREADS,
                                  Variant::MINIMUM_RESIDENT)
    rows_forward_kernel(const BnLeakyReluForward p, const RowsWork work, float bessel) {
    using Tile = RowTile<scalar_t, Variant::TILE>;
    constexpr int PACK = Tile::PACK;
    constexpr int TILE = Variant::TILE;
    extern __shared__ uint4 kept[]; // [KEPT][THREADS], then the scratch
    auto &scratch = *reinterpret_cast<TileScratch<TILE> *>(kept + Variant::KEPT * Tile::THREADS);
    const Tile at;
    const int block = blockIdx.x;
    const int chain = block * CHAINS + at.chain;
    const int chains = work.blocks * CHAINS;
    const int chain_rows = rows_of_chain(work, chain);
    const int stride = SLOTS * chains * work.channels; // elements from a slot's row to its next
    const DataType type = p.shape.parameter_type;

    // All sets make the same number of rounds: the barrier is the whole grid's.
    for (int round = 0; round < work.tiles; round += work.sets) {
        const int first_channel = (round + static_cast<int>(blockIdx.y)) * TILE;
        const bool inside = first_channel + at.channel < work.channels;
        const int count = inside ? rows_of_slot(chain_rows, at.slot) : 0;
        const int offset = (chain + at.slot * chains) * work.channels + first_channel + at.channel;
        const scalar_t *input = static_cast<const scalar_t *>(p.input) + offset;
        scalar_t *output = static_cast<scalar_t *>(p.output) + offset;

        // Asked for early, because its latency would show after the barrier.
        const int own = first_channel + static_cast<int>(threadIdx.x);
        const bool owns = threadIdx.x < TILE && own < work.channels;
        const float weight = owns ? load_parameter_or(1.0f, p.weight, type, own) : 1.0f;
        const float bias = owns ? load_parameter_or(0.0f, p.bias, type, own) : 0.0f;

        float mean[PACK] = {}, m2[PACK] = {};
        stream_rows<Variant::UNROLL>(
            count,
            [&](int row) { return __ldcg(reinterpret_cast<const uint4 *>(input + row * stride)); },
            [&](int row, const uint4 &word) {
                if (row < Variant::KEPT) {
                    kept[row * Tile::THREADS + threadIdx.x] = word;
                }
                float value[PACK];
                Scalar<scalar_t>::unpack(word, value);
                const float reciprocal = reciprocal_of(row + 1);
#pragma unroll
                for (int e = 0; e < PACK; ++e) {
                    welford_rows(mean[e], m2[e], value[e], reciprocal);
                }
            });
        if (count < work.trips) {
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                welford_rows_past_the_end(mean[e], m2[e]);
            }
        }
        if (owns) {
            scratch.weight[threadIdx.x] = weight;
            scratch.bias[threadIdx.x] = bias;
        }
        merge_slots<StatisticsMerge>(scratch, at, chain_rows, mean, m2);
        reduce_tile<StatisticsMerge, Variant::GRID, Tile::THREADS>(
            scratch, work, block, first_channel, [&](int channel, const Partial &total) {
                const float variance = __fdiv_rn(total.second, static_cast<float>(work.rows));
                scratch.result[0][channel] = total.first;
                scratch.result[1][channel] = inverse_deviation(variance, p.eps);
                if (block == 0) { // one block of each set writes the channel
                    finish_statistics(p, first_channel + channel, total.first, variance, bessel);
                }
            });

        Channel parameters[PACK];
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
            const int channel = at.channel + e;
            parameters[e] = {scratch.result[0][channel], scratch.result[1][channel],
                             scratch.weight[channel], scratch.bias[channel]};
        }
        const auto transform = [&](int row, const uint4 &word) {
            float value[PACK];
            Scalar<scalar_t>::unpack(word, value);
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                value[e] = forward_value<scalar_t>(value[e], parameters[e], p.negative_slope);
            }
            __stcs(reinterpret_cast<uint4 *>(output + row * stride), Scalar<scalar_t>::pack(value));
        };
        stream_rows<Variant::UNROLL>(
            count - Variant::KEPT,
            [&](int k) {
                return __ldcg(reinterpret_cast<const uint4 *>(input + (count - 1 - k) * stride));
            },
            [&](int k, const uint4 &word) { transform(count - 1 - k, word); });
#pragma unroll 2
        for (int row = min(count, Variant::KEPT) - 1; row >= 0; --row) {
            transform(row, kept[row * Tile::THREADS + threadIdx.x]);
        }
        __syncthreads(); // the scratch has been read before the next tile overwrites it
    }
}

template <typename scalar_t, typename Variant>
cudaError_t launch(const BnLeakyReluForward &params, cudaStream_t stream) {
    static ResidentBlocks resident;
    const float bessel =
        bessel_correction(static_cast<int64_t>(params.shape.images) * params.shape.length);
    return launch_rows_variant<scalar_t, Variant>(resident, rows_forward_kernel<scalar_t, Variant>,
                                                  params, 1, stream, bessel);
}

// Shared memory holds KEPT rows of 16 bytes a thread: 227 KB a multiprocessor, less the scratch.
template <typename scalar_t>
cudaError_t launch_for(const BnLeakyReluForward &params, cudaStream_t stream) {
    constexpr bool WIDE = Scalar<scalar_t>::NARROW;
    constexpr int SMALL_TILE = WIDE ? 16 : 8; // 128 threads: many small blocks for few rows
    const int rows = params.shape.images * params.shape.length;
    const RowGrid grid = row_grid(rows, params.shape.channels);
    if (grid.blocks == 1) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 8, 28, 1, false>>(params, stream);
    }
    if (grid.blocks <= 16) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 4, 6, 1, true>>(params, stream);
    }
    if constexpr (WIDE) {
        return launch<scalar_t, RowsVariant<64, 8, 26, 1, true>>(params, stream);
    } else {
        const bool fits_on_chip = longest_slot(rows, grid.blocks) <= 13;
        if (params.shape.channels == 64 && !fits_on_chip) {
            return launch<scalar_t, RowsVariant<64, 4, 13, 1, true>>(params, stream);
        }
        return launch<scalar_t, RowsVariant<32, 4, 13, 2, true>>(params, stream);
    }
}

} // namespace

cudaError_t launch_rows_forward(const BnLeakyReluForward &params, cudaStream_t stream) {
    const bool aligned = is_aligned(params.input) && is_aligned(params.output);
    const RowGrid grid = row_grid(static_cast<int64_t>(params.shape.images) * params.shape.length,
                                  params.shape.channels);
    cudaError_t error = cudaErrorNotSupported;
    const cudaError_t launched = for_type(params.shape.data_type, [&](auto type) {
        using scalar_t = decltype(type);
        if (rows_tile_fits<scalar_t>(params.shape, grid, aligned)) {
            error = launch_for<scalar_t>(params, stream);
        }
    });
    return error == cudaSuccess ? launched : error;
}

} // namespace rp_kernels
