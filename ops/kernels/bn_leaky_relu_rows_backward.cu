// Training backward over ROWS in one launch: sums of dy and dy * (x - mean), then grad_input.
//   dy = y > 0 ? grad : rn(grad * slope), with y computed again from x
//   grad_input = rn(w * invstd * fma(-f, x - mean, fma(-sum, 1/R, dy)))
#include "bn_leaky_relu_rows_launch.cuh"

namespace rp_kernels {
namespace {

template <typename scalar_t, typename Variant>
__global__ void __launch_bounds__(RowTile<scalar_t, Variant::TILE>::THREADS,
                                  Variant::MINIMUM_RESIDENT)
    rows_backward_kernel(const BnLeakyReluBackward p, const RowsWork work, float reciprocal) {
    using Tile = RowTile<scalar_t, Variant::TILE>;
    constexpr int PACK = Tile::PACK;
    constexpr int TILE = Variant::TILE;
    using Rows = SlotRows<scalar_t, TILE>;
    extern __shared__ uint4 shared[]; // the queue, then the scratch
    auto &scratch =
        *reinterpret_cast<TileScratch<TILE> *>(shared + 2 * Variant::DEPTH * Tile::THREADS);
    const int block = blockIdx.x;
    assume_parameter_type<scalar_t>(p);

    RowQueue<scalar_t, 2, Variant::DEPTH, Tile::THREADS> queue(
        shared, !Variant::STREAMS || work.trips <= Variant::DEPTH, p.input, p.grad_output);
    const Rows start(work, block, blockIdx.y * TILE, threadIdx.x);
    queue.start(start.first, start.stride, start.count);
    for (int round = 0; round * work.sets + blockIdx.y < work.tiles; ++round) {
        const int first_channel = (round * work.sets + static_cast<int>(blockIdx.y)) * TILE;
        const Rows read(work, block, first_channel, opaque_thread());
        Channel channels[PACK];
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
            const int channel = min(first_channel + read.at.channel + e, work.channels - 1);
            channels[e] = channel_in_training(p, channel);
        }
        float sum[PACK] = {}, dot[PACK] = {};
        queue.up(read.first, read.stride, read.count, [&](int, const auto &words) {
            float value[PACK], grad[PACK];
            Scalar<scalar_t>::unpack(words.tensor[0], value);
            Scalar<scalar_t>::unpack(words.tensor[1], grad);
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                const float centered = center(value[e], channels[e]);
                const float dy =
                    gradient_of_y<scalar_t>(centered, grad[e], channels[e], p.negative_slope);
                sum[e] = __fadd_rn(sum[e], dy);
                dot[e] = __fmaf_rn(centered, dy, dot[e]);
            }
        });
        if (read.count < work.trips) { // eager mode adds the zero of a missing row
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                sum[e] = __fadd_rn(sum[e], 0.0f);
                dot[e] = __fmaf_rn(center(0.0f, channels[e]), 0.0f, dot[e]);
            }
        }
        const Rows rows(work, block, first_channel, opaque_thread());
        merge_slots<GradientMerge>(scratch, rows.at, rows.chain_rows, sum, dot);
        __syncthreads(); // every slot is in the scratch, and the last tile's parameters are read
        if (rows.at.chain == 0 && rows.at.slot == 0) {
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                scratch.parameters[rows.at.channel + e] = channels[e];
            }
        }
        reduce_tile<GradientMerge, Variant::GRID, Tile::THREADS>(
            scratch, work, block, round, first_channel, [&](int channel, const Partial &total) {
                scratch.sum[channel] = total.first;
                scratch.dot[channel] = total.second;
                if (block == 0) { // one block of each set writes the channel
                    const int index = first_channel + channel;
                    finish_parameters(p, index, total.first, total.second, p.invstd[index]);
                }
            });

        const Rows write(work, block, first_channel, opaque_thread());
        scalar_t *grad_input = static_cast<scalar_t *>(p.grad_input) + write.first;
        Channel parameters[PACK];
        RowsGradient gradient[PACK];
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
            const int channel = write.at.channel + e;
            parameters[e] = scratch.parameters[channel];
            gradient[e] = rows_gradient(scratch.sum[channel], scratch.dot[channel],
                                        parameters[e].weight, parameters[e].invstd, reciprocal);
        }
        const int to_next = work.sets * TILE;
        const bool has_next = write.has_channel(first_channel + to_next, work);
        queue.down(write.first, write.stride, write.count, has_next, to_next,
                   [&](int row, const auto &words) {
                       float value[PACK], grad[PACK];
                       Scalar<scalar_t>::unpack(words.tensor[0], value);
                       Scalar<scalar_t>::unpack(words.tensor[1], grad);
#pragma unroll
                       for (int e = 0; e < PACK; ++e) {
                           const float centered = center(value[e], parameters[e]);
                           const float dy = gradient_of_y<scalar_t>(
                               centered, grad[e], parameters[e], p.negative_slope);
                           value[e] = grad_input_rows(centered, dy, gradient[e]);
                       }
                       __stcs(reinterpret_cast<uint4 *>(grad_input + row * write.stride),
                              Scalar<scalar_t>::pack(value));
                   });
    }
}

template <typename scalar_t, typename Variant>
cudaError_t launch(const BnLeakyReluBackward &params, cudaStream_t stream) {
    static ResidentBlocks resident;
    const float reciprocal =
        rows_reciprocal(static_cast<int64_t>(params.shape.images) * params.shape.length);
    return launch_rows_variant<scalar_t, Variant>(resident, rows_backward_kernel<scalar_t, Variant>,
                                                  params, 2, stream, reciprocal);
}

template <typename scalar_t>
cudaError_t launch_for(const BnLeakyReluBackward &params, cudaStream_t stream) {
    constexpr bool WIDE = Scalar<scalar_t>::NARROW;
    constexpr int SMALL_TILE = WIDE ? 16 : 8;
    const int rows = params.shape.images * params.shape.length;
    const RowGrid grid = row_grid(rows, params.shape.channels);
    if (grid.blocks == 1) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 28, false, 1, false>>(params, stream);
    }
    if (grid.blocks <= 16) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 6, false, 1, true>>(params, stream);
    }
    if constexpr (WIDE) {
        return launch<scalar_t, RowsVariant<64, 13, true, 1, true>>(params, stream);
    } else {
        if (params.shape.channels == 64 && longest_slot(rows, grid.blocks) > 13) {
            return launch<scalar_t, RowsVariant<64, 6, true, 1, true>>(params, stream);
        }
        return launch<scalar_t, RowsVariant<32, 6, true, 2, true>>(params, stream);
    }
}

} // namespace

cudaError_t launch_rows_backward(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const bool aligned =
        is_aligned(params.input) && is_aligned(params.grad_output) && is_aligned(params.grad_input);
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
