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
    using Rows = SlotRows<scalar_t, TILE>;
    extern __shared__ uint4 shared[]; // the queue, then the scratch
    auto &scratch = *reinterpret_cast<TileScratch<TILE> *>(shared + Variant::DEPTH * Tile::THREADS);
    const int block = blockIdx.x;
    assume_parameter_type<scalar_t>(p);

    RowQueue<scalar_t, 1, Variant::DEPTH, Tile::THREADS> queue(
        shared, !Variant::STREAMS || work.trips <= Variant::DEPTH, p.input);
    const Rows start(work, block, blockIdx.y * TILE, threadIdx.x);
    queue.start(start.first, start.stride, start.count);
    for (int round = 0; round * work.sets + blockIdx.y < work.tiles; ++round) {
        const int first_channel = (round * work.sets + static_cast<int>(blockIdx.y)) * TILE;

        const int own = first_channel + static_cast<int>(threadIdx.x);
        const bool owns = threadIdx.x < TILE && own < work.channels;
        const ChannelBefore before = owns ? channel_before(p, own) : ChannelBefore{};

        float mean[PACK] = {}, m2[PACK] = {};
        const Rows read(work, block, first_channel, opaque_thread());
        queue.up(read.first, read.stride, read.count, [&](int row, const auto &words) {
            float value[PACK];
            Scalar<scalar_t>::unpack(words.tensor[0], value);
            const float reciprocal = reciprocal_of(row + 1);
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                welford_rows(mean[e], m2[e], value[e], reciprocal);
            }
        });
        if (read.count < work.trips) {
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                welford_rows_past_the_end(mean[e], m2[e]);
            }
        }
        const Rows rows(work, block, first_channel, opaque_thread());
        merge_slots<StatisticsMerge>(scratch, rows.at, rows.chain_rows, mean, m2);
        __syncthreads(); // every slot is in the scratch, and the last tile's parameters are read
        if (owns) {
            scratch.parameters[threadIdx.x].weight = before.weight;
            scratch.parameters[threadIdx.x].bias = before.bias;
        }
        reduce_tile<StatisticsMerge, Variant::GRID, Tile::THREADS>(
            scratch, work, block, round, first_channel, [&](int channel, const Partial &total) {
                const float variance = __fdiv_rn(total.second, static_cast<float>(work.rows));
                scratch.parameters[channel].mean = total.first;
                scratch.parameters[channel].invstd = inverse_deviation(variance, p.eps);
                scratch.variance[channel] = variance;
            });

        const Rows write(work, block, first_channel, opaque_thread());
        scalar_t *output = static_cast<scalar_t *>(p.output) + write.first;
        Channel parameters[PACK];
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
            parameters[e] = scratch.parameters[write.at.channel + e];
        }
        const int to_next = work.sets * TILE;
        const bool has_next = write.has_channel(first_channel + to_next, work);
        queue.down(write.first, write.stride, write.count, has_next, to_next,
                   [&](int row, const auto &words) {
                       float value[PACK];
                       Scalar<scalar_t>::unpack(words.tensor[0], value);
#pragma unroll
                       for (int e = 0; e < PACK; ++e) {
                           value[e] =
                               forward_value<scalar_t>(value[e], parameters[e], p.negative_slope);
                       }
                       __stcs(reinterpret_cast<uint4 *>(output + row * write.stride),
                              Scalar<scalar_t>::pack(value));
                   });
        if (block == 0 && owns) { // one block of each set writes the channel
            finish_statistics(p, own, before, scratch.parameters[threadIdx.x].mean,
                              scratch.variance[threadIdx.x], bessel);
        }
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

// Shared memory holds DEPTH rows of 16 bytes a thread: 227 KB a multiprocessor, less the scratch.
template <typename scalar_t>
cudaError_t launch_for(const BnLeakyReluForward &params, cudaStream_t stream) {
    constexpr bool WIDE = Scalar<scalar_t>::NARROW;
    constexpr int SMALL_TILE = WIDE ? 16 : 8; // 128 threads: many small blocks for few rows
    const int rows = params.shape.images * params.shape.length;
    const RowGrid grid = row_grid(rows, params.shape.channels);
    if (grid.blocks == 1) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 28, false, 1, false>>(params, stream);
    }
    if (grid.blocks <= 16) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 6, false, 1, true>>(params, stream);
    }
    if constexpr (WIDE) {
        return launch<scalar_t, RowsVariant<64, 26, true, 1, true>>(params, stream);
    } else {
        const bool fits_on_chip = longest_slot(rows, grid.blocks) <= 13;
        if (params.shape.channels == 64 && !fits_on_chip) {
            return launch<scalar_t, RowsVariant<64, 13, true, 1, true>>(params, stream);
        }
        return launch<scalar_t, RowsVariant<32, 13, true, 2, true>>(params, stream);
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
