// Weight gradients of one layer over one segment, by the tensor cores straight from the slots:
//
//   d(W) [4H][columns] = sum over time steps and rows of d(gates)^T [x | h(t-1)]
//
// 16-bit operands: a warpgroup has two groups of 64 gate rows. An instruction takes two time steps;
// after an odd number of them comes a slot of zeros.
#pragma once

#include "lstm_train_layout.cuh"

namespace rp_lstm {

// Where the sums go: the block's `partial`, in fragment order [blocks of 8 columns][row groups][4
// times 16 rows][lane][2]; blocks of layer 0: x, h; then layer 1: input, h.
template <class R> struct WeightPlace {
    float2 *partial;
    int inputs;           // blocks of the input
    int input, recurrent; // first blocks
    bool adds;            // to what the pieces before have left

    __device__ __forceinline__ WeightPlace(float2 *partial_, int features, bool adds_)
        : partial(partial_), inputs(R::kFirst ? R::input_blocks(features) : R::kHidden / 8),
          input(R::kFirst ? 0 : R::input_blocks(features) + R::kHidden / 8),
          recurrent(input + inputs), adds(adds_) {}
    // A fragment: columns 2q and 2q + 1 of rows g and g + 8.
    __device__ __forceinline__ void store(const Thread &th, int block, int row_group, int m,
                                          const float *v) const {
        const int tile = (block * R::kRowGroups + row_group) * 4 + m;
        store_or_add((float4 *)(partial + tile * 64 + th.lane() * 2),
                     make_float4(v[0], v[1], v[2], v[3]), adds);
    }
};

// Of 64 gate rows, by a warpgroup.
template <class R> struct WeightSums {
    float recurrent[R::kHidden / 2], input[R::kFirst ? 16 : R::kHidden / 2];
};

// Of two groups of gate rows, `row_group` and the next.
template <class R>
__device__ __forceinline__ void add_weight_products(const Thread &th, int count, int row_group,
                                                    WeightSums<R> (&sums)[2]) {
    using Op = typename R::Operand;
#pragma unroll 1
    for (int t = 0; t < count; t += 2) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        wgmma_fence();
        each_product<R::kPlanes>([&](int p, int q) {
            const auto recurrent =
                wgmma_matrix<R::kTileRow>(slot + R::kPrevious + q * R::kTileBytes, R::kSlotBytes);
            const auto input =
                wgmma_matrix<R::kTileRow>(slot + R::kInput + q * R::kInputPlane, R::kSlotBytes);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const auto gates = wgmma_matrix<kGateRow>(
                    slot + (row_group + r) * kGatePart + p * R::kGateGradientBytes, R::kSlotBytes);
                Op::wgmma(sums[r].recurrent, gates, recurrent);
                Op::wgmma(sums[r].input, gates, input);
            }
        });
        wgmma_commit();
    }
    wgmma_wait();
}

// Returns 0, or NaN when a sum is not finite: an operand that is not makes all columns of its row
// so, and one is enough.
template <class R>
__device__ __forceinline__ float store_weight_sums(const Thread &th, const WeightPlace<R> &place,
                                                   int row_group, const WeightSums<R> &sums) {
    const int m = th.warp() & 3;
#pragma unroll
    for (int n = 0; n < R::kHidden / 8; ++n) {
        place.store(th, place.recurrent + n, row_group, m, sums.recurrent + 4 * n);
    }
#pragma unroll
    for (int n = 0; n < (R::kFirst ? 4 : R::kHidden / 8); ++n) {
        if (!R::kFirst || n < place.inputs) {
            place.store(th, place.input + n, row_group, m, sums.input + 4 * n);
        }
    }
    return fmaf(sums.recurrent[0], 0.0f, sums.recurrent[2] * 0.0f);
}

template <class R, class Multiplied>
__device__ __forceinline__ float wgmma_weight_gradient(const Thread &th, int count,
                                                       const WeightPlace<R> &place,
                                                       const Multiplied &multiplied) {
    const int row_group = th.id / 128 * 2;
    WeightSums<R> sums[2] = {};
    const auto settle = [&] {
        wgmma_settle(sums[0].recurrent, sums[0].input, sums[1].recurrent, sums[1].input);
    };
    settle();
    add_weight_products(th, count, row_group, sums);
    settle();
    multiplied();
    return store_weight_sums(th, place, row_group, sums[0]) +
           store_weight_sums(th, place, row_group + 1, sums[1]);
}

// The slot after an odd number of time steps: no gate gradients.
template <class R> __device__ __forceinline__ void clear_slot_after(const Thread &th, int count) {
    if (R::kBytes == 2 && count % 2 == 1) {
#pragma unroll
        for (int p = 0; p < R::kPlanes; ++p) {
            store_shared16(th.slots + count * R::kSlotBytes + p * R::kGateGradientBytes +
                               th.id * 16,
                           make_uint4(0, 0, 0, 0));
        }
    }
}

// 32-bit operands, which a warpgroup's product takes in rows of k only: by warps, with k = 8 rows
// of one time step. An upper layer's even warps take the input's columns, its odd ones h(t-1)'s.
template <class R, class Multiplied>
__device__ __forceinline__ void mma_weight_gradient(const Thread &th, int count,
                                                    const WeightPlace<R> &place,
                                                    const Multiplied &multiplied) {
    using Op = typename R::Operand;
    constexpr int kBlocks = R::kHidden / (R::kFirst ? 16 : 8);
    static_assert(R::kPlanes == 1 && kBlocks % 2 == 0);
    const int row_group = th.warp() >> 1, side = th.warp() & 1;
    const int first_block = R::kFirst ? side * kBlocks : 0;
    const bool has_input = R::kFirst && 2 * side < place.inputs;
    // The lane's batch rows are 2q and 2q + 1; its columns are g of 8, in two chunks. h has 2 bytes
    // a number: four blocks' rows, a chunk each, for ldmatrix.
    const int row = 2 * th.q();
    const uint32_t gates = th.slots + row_group * 2 * kGatePart +
                           chunk_place<kGateRow>(row, th.g() >> 2) + (th.g() & 3) * 4;
    const uint32_t x_columns = th.slots + R::kInput + side * 512 + row * 64 + th.g() * 4;
    const uint32_t columns = th.slots + (R::kFirst || side ? R::kPrevious : R::kInput) +
                             chunk_place<R::kTileRow>(th.lane() & 7, first_block | th.lane() >> 3);
    float sum[4][kBlocks][4] = {}, input_sum[R::kFirst ? 4 : 1][2][4] = {};
#pragma unroll 1
    for (int t = 0; t < count; ++t) {
        const uint32_t slot = t * R::kSlotBytes;
        uint4 a[4];
        uint32_t b[kBlocks][2], x[2][2];
#pragma unroll
        for (int n = 0; n < kBlocks; n += 4) {
            uint32_t v[4];
            load_matrix_transposed((columns + slot) ^ n << 4, v);
#pragma unroll
            for (int k = 0; k < 4 && n + k < kBlocks; ++k) {
                const uint2 rows = Op::widen(v[k]);
                b[n + k][0] = rows.x, b[n + k][1] = rows.y;
            }
        }
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            const uint32_t low = ((gates + slot) ^ (m & 1) << 6) + (m >> 1) * kGatePart;
            const uint32_t high = low ^ kOddRow<kGateRow>;
            a[m] = make_uint4(load_shared4(low), load_shared4(low ^ 32), load_shared4(high),
                              load_shared4(high ^ 32));
        }
#pragma unroll
        for (int n = 0; n < 2 && has_input; ++n) {
            x[n][0] = load_shared4(x_columns + slot + n * 32);
            x[n][1] = load_shared4(x_columns + slot + n * 32 + 64);
        }
#pragma unroll
        for (int m = 0; m < 4; ++m) {
#pragma unroll
            for (int n = 0; n < kBlocks; ++n) {
                Op::mma(sum[m][n], a[m], b[n][0], b[n][1]);
            }
#pragma unroll
            for (int n = 0; R::kFirst && n < 2; ++n) {
                if (has_input) {
                    Op::mma(input_sum[R::kFirst ? m : 0][n], a[m], x[n][0], x[n][1]);
                }
            }
        }
    }
    multiplied();
    const int block = (R::kFirst || side ? place.recurrent : place.input) + first_block;
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < kBlocks; ++n) {
            place.store(th, block + n, row_group, m, sum[m][n]);
        }
#pragma unroll
        for (int n = 0; R::kFirst && n < 2; ++n) {
            if (2 * side + n < place.inputs) {
                place.store(th, 2 * side + n, row_group, m, input_sum[R::kFirst ? m : 0][n]);
            }
        }
    }
}

// multiplied() is called when the warp has read the slots. With a loss scale: when a number is not
// finite, *overflow = stamp.
template <class R, class Multiplied>
__device__ __forceinline__ void weight_gradient(Thread th, int count, int features, bool adds,
                                                float2 *partial, unsigned *overflow, unsigned stamp,
                                                const Multiplied &multiplied) {
    th.id = computed_here(th.id);
    const WeightPlace<R> place(partial, features, adds);
    if constexpr (R::kBytes == 2) {
        const float finite = wgmma_weight_gradient<R>(th, count, place, multiplied);
        if (R::Operand::kScaled && finite != 0.0f) {
            __stcg(overflow, stamp);
        }
    } else {
        static_assert(!R::Operand::kScaled);
        mma_weight_gradient<R>(th, count, place, multiplied);
    }
}

} // namespace rp_lstm
