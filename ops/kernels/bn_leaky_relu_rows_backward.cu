// Training backward over ROWS in one launch: sums of dy and dy * (x - mean), then grad_input.
//   dy = y > 0 ? grad : rn(grad * slope), with y computed again from x
//   grad_input = rn(w * invstd * fma(-f, x - mean, fma(-sum, 1/R, dy)))
#include "bn_leaky_relu_rows_launch.cuh"

namespace rp_kernels {
namespace {

struct InputAndGrad {
    uint4 input, grad;
};

template <typename scalar_t, typename Variant>
__global__ void __launch_bounds__(RowTile<scalar_t, Variant::TILE>::THREADS,
                                  Variant::MINIMUM_RESIDENT)
    rows_backward_kernel(const BnLeakyReluBackward p, const RowsWork work, float reciprocal) {
    using Tile = RowTile<scalar_t, Variant::TILE>;
    constexpr int PACK = Tile::PACK;
    constexpr int TILE = Variant::TILE;
    extern __shared__ uint4 kept[]; // [KEPT][2][THREADS], then the scratch
    auto &scratch =
        *reinterpret_cast<TileScratch<TILE> *>(kept + 2 * Variant::KEPT * Tile::THREADS);
    const Tile at;
    const int block = blockIdx.x;
    const int chain = block * CHAINS + at.chain;
    const int chains = work.blocks * CHAINS;
    const int chain_rows = rows_of_chain(work, chain);
    const int stride = SLOTS * chains * work.channels; // elements from a slot's row to its next

    for (int round = 0; round < work.tiles; round += work.sets) {
        const int first_channel = (round + static_cast<int>(blockIdx.y)) * TILE;
        const bool inside = first_channel + at.channel < work.channels;
        const int count = inside ? rows_of_slot(chain_rows, at.slot) : 0;
        const int offset = (chain + at.slot * chains) * work.channels + first_channel + at.channel;
        const scalar_t *input = static_cast<const scalar_t *>(p.input) + offset;
        const scalar_t *grad_output = static_cast<const scalar_t *>(p.grad_output) + offset;
        scalar_t *grad_input = static_cast<scalar_t *>(p.grad_input) + offset;

        Channel parameters[PACK];
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
            const int channel = inside ? first_channel + at.channel + e : 0;
            parameters[e] = channel_in_training(p, channel);
        }
        float sum[PACK] = {}, dot[PACK] = {};
        const auto load = [&](int row) {
            return InputAndGrad{
                __ldcg(reinterpret_cast<const uint4 *>(input + row * stride)),
                __ldcg(reinterpret_cast<const uint4 *>(grad_output + row * stride))};
        };
        stream_rows<Variant::UNROLL>(count, load, [&](int row, const InputAndGrad &word) {
            if (row < Variant::KEPT) {
                kept[2 * row * Tile::THREADS + threadIdx.x] = word.input;
                kept[(2 * row + 1) * Tile::THREADS + threadIdx.x] = word.grad;
            }
            float value[PACK], grad[PACK];
            Scalar<scalar_t>::unpack(word.input, value);
            Scalar<scalar_t>::unpack(word.grad, grad);
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                const float centered = center(value[e], parameters[e]);
                const float dy =
                    gradient_of_y<scalar_t>(centered, grad[e], parameters[e], p.negative_slope);
                sum[e] = __fadd_rn(sum[e], dy);
                dot[e] = __fmaf_rn(centered, dy, dot[e]);
            }
        });
        if (count < work.trips) { // eager mode adds the zero of a missing row
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                sum[e] = __fadd_rn(sum[e], 0.0f);
                dot[e] = __fmaf_rn(center(0.0f, parameters[e]), 0.0f, dot[e]);
            }
        }
        merge_slots<GradientMerge>(scratch, at, chain_rows, sum, dot);
        reduce_tile<GradientMerge, Variant::GRID, Tile::THREADS>(
            scratch, work, block, first_channel, [&](int channel, const Partial &total) {
                const int index = first_channel + channel;
                const float invstd = p.invstd[index];
                const float weight =
                    load_parameter_or(1.0f, p.weight, p.shape.parameter_type, index);
                const RowsGradient gradient =
                    rows_gradient(total.first, total.second, weight, invstd, reciprocal);
                scratch.result[0][channel] = gradient.sum;
                scratch.result[1][channel] = gradient.slope;
                scratch.result[2][channel] = gradient.scale;
                if (block == 0) { // one block of each set writes the channel
                    finish_parameters(p, index, total.first, total.second, invstd);
                }
            });

        RowsGradient gradient[PACK];
#pragma unroll
        for (int e = 0; e < PACK; ++e) {
            const int channel = at.channel + e;
            gradient[e] = {scratch.result[0][channel], scratch.result[1][channel],
                           scratch.result[2][channel], reciprocal};
        }
        const auto transform = [&](int row, const InputAndGrad &word) {
            float value[PACK], grad[PACK];
            Scalar<scalar_t>::unpack(word.input, value);
            Scalar<scalar_t>::unpack(word.grad, grad);
#pragma unroll
            for (int e = 0; e < PACK; ++e) {
                const float centered = center(value[e], parameters[e]);
                const float dy =
                    gradient_of_y<scalar_t>(centered, grad[e], parameters[e], p.negative_slope);
                value[e] = grad_input_rows(centered, dy, gradient[e]);
            }
            __stcs(reinterpret_cast<uint4 *>(grad_input + row * stride),
                   Scalar<scalar_t>::pack(value));
        };
        stream_rows<Variant::UNROLL>(
            count - Variant::KEPT, [&](int k) { return load(count - 1 - k); },
            [&](int k, const InputAndGrad &word) { transform(count - 1 - k, word); });
#pragma unroll 2
        for (int row = min(count, Variant::KEPT) - 1; row >= 0; --row) {
            transform(row, {kept[2 * row * Tile::THREADS + threadIdx.x],
                            kept[(2 * row + 1) * Tile::THREADS + threadIdx.x]});
        }
        __syncthreads(); // the scratch has been read before the next tile overwrites it
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
        return launch<scalar_t, RowsVariant<SMALL_TILE, 4, 28, 1, false>>(params, stream);
    }
    if (grid.blocks <= 16) {
        return launch<scalar_t, RowsVariant<SMALL_TILE, 4, 6, 1, true>>(params, stream);
    }
    if constexpr (WIDE) {
        return launch<scalar_t, RowsVariant<64, 4, 13, 1, true>>(params, stream);
    } else {
        if (params.shape.channels == 64 && longest_slot(rows, grid.blocks) > 13) {
            return launch<scalar_t, RowsVariant<64, 2, 6, 1, true>>(params, stream);
        }
        return launch<scalar_t, RowsVariant<32, 2, 6, 2, true>>(params, stream);
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
