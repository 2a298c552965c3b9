// Weight gradients of one layer over one segment, by the tensor cores straight from the slots:
//
//   d(W) [4H][columns] = sum over time steps and rows of d(gates)^T [x | h(t-1)]
//
// 16-bit operands: a warpgroup has two groups of 64 gate rows. An instruction takes two time steps,
// and x or the input beside h(t-1); after an odd number of time steps comes a slot of zeros.
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
    // Fragments of 16 gate rows, m of the four of a group, in the blocks of 8 columns from `block`
    // on: columns 2q and 2q + 1 of rows g and g + 8.
    template <int kCount>
    __device__ __forceinline__ void store(const Thread &th, int block, int row_group, int m,
                                          const float *fragments, int count = kCount) const {
        float2 *const to =
            partial + ((block * R::kRowGroups + row_group) * 4 + m) * 64 + th.lane() * 2;
        const auto store_each = [&](const auto &store_one) {
#pragma unroll
            for (int n = 0; n < kCount; ++n) {
                const float *const v = fragments + 4 * n;
                if (n < count) {
                    store_one((float4 *)(to + n * R::kRowGroups * 256),
                              make_float4(v[0], v[1], v[2], v[3]));
                }
            }
        };
        if (adds) {
            store_each([](float4 *place, float4 v) { add(place, v); });
        } else {
            store_each([](float4 *place, float4 v) { __stcg(place, v); });
        }
    }
};

// Of 64 gate rows, by a warpgroup: columns of h, then of the input.
template <class R> constexpr int kWeightSums = (R::kHidden + (R::kFirst ? 32 : R::kHidden)) / 2;

// Begins the products of a group of gate rows.
template <class R>
__device__ __forceinline__ void add_weight_products(const Thread &th, int count, int row_group,
                                                    float (&sums)[kWeightSums<R>]) {
    using Op = typename R::Operand;
    static_assert(R::kInputPlane == R::kTileBytes);
#pragma unroll 1
    for (int t = 0; t < count; t += 2) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        wgmma_fence();
        each_product<R::kPlanes>([&](int p, int q) {
            const auto gates = wgmma_matrix<kGateRow>(
                slot + row_group * kGatePart + p * R::kGateGradientBytes, R::kSlotBytes);
            const auto columns = wgmma_matrix<R::kTileRow>(slot + R::kPrevious + q * R::kTileBytes,
                                                           R::kSlotBytes, R::kInput - R::kPrevious);
            Op::wgmma(sums, gates, columns);
        });
        wgmma_commit();
    }
}

// The first kCarriedSums fragments of the first group's sums, in shared memory from piece to piece:
// at `carried`.
template <class R>
__device__ __forceinline__ uint32_t carried_place(const Thread &th, uint32_t carried, int n) {
    return carried + (n * R::kThreads + th.id) * 16;
}
template <class R>
__device__ __forceinline__ void carry_sums(const Thread &th, uint32_t carried, const float *sums) {
#pragma unroll
    for (int n = 0; n < R::kCarriedSums; ++n) {
        store_shared_float4(carried_place<R>(th, carried, n), sums + 4 * n);
    }
}
template <class R>
__device__ __forceinline__ void add_carried_sums(const Thread &th, uint32_t carried, float *sums) {
#pragma unroll
    for (int n = 0; n < R::kCarriedSums; ++n) {
        const float4 before = load_shared_float4(carried_place<R>(th, carried, n));
        sums[4 * n] = add_flushed(before.x, sums[4 * n]);
        sums[4 * n + 1] = add_flushed(before.y, sums[4 * n + 1]);
        sums[4 * n + 2] = add_flushed(before.z, sums[4 * n + 2]);
        sums[4 * n + 3] = add_flushed(before.w, sums[4 * n + 3]);
    }
}

// Returns 0, or NaN when a sum is not finite: an operand that is not makes all columns of its row
// so, and one is enough. `carried`: shared address of the sums that the block carries from piece to
// piece, or 0; they leave with the last one, when no `more` are to come.
template <class R>
__device__ __forceinline__ float store_weight_sums(const Thread &th, const WeightPlace<R> &place,
                                                   int row_group, float (&sums)[kWeightSums<R>],
                                                   uint32_t carried = 0, bool more = false) {
    wgmma_settle(sums);
    const int m = th.warp() & 3;
    constexpr int kBlocks = R::kHidden / 8;
    if (carried && place.adds) {
        add_carried_sums<R>(th, carried, sums);
    }
    const float *const input = sums + 4 * kBlocks;
    if (carried && more) {
        carry_sums<R>(th, carried, sums);
    } else {
        WeightPlace<R> whole = place;
        whole.adds = place.adds && !carried;
        whole.template store<kBlocks>(th, place.recurrent, row_group, m, sums);
        if constexpr (!R::kFirst) {
            whole.template store<kBlocks>(th, place.input, row_group, m, input);
        }
    }
    if constexpr (R::kFirst) { // x's are never carried
        place.template store<4>(th, place.input, row_group, m, input, place.inputs);
    }
    return fmaf(sums[0], 0.0f, sums[2] * 0.0f);
}

template <class R, class Multiplied>
__device__ __forceinline__ float
wgmma_weight_gradient(const Thread &th, int count, const WeightPlace<R> &place, uint32_t carried,
                      bool more, const Multiplied &multiplied) {
    const int row_group = th.id / 128 * 2;
    float sums[2][kWeightSums<R>] = {};
    wgmma_settle(sums[0]);
    wgmma_settle(sums[1]);
    add_weight_products<R>(th, count, row_group, sums[0]);
    add_weight_products<R>(th, count, row_group + 1, sums[1]);
    // Where there are enough time steps, the first are stored while the second are multiplied:
    // these are (count + 1) / 2 commits.
    constexpr int kSecond = 7;
    if ((count + 1) / 2 >= kSecond) {
        wgmma_wait<kSecond>();
    } else {
        wgmma_wait<0>();
    }
    const float finite = store_weight_sums(th, place, row_group, sums[0], carried, more);
    wgmma_wait<0>();
    multiplied();
    return finite + store_weight_sums(th, place, row_group + 1, sums[1]);
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
        place.template store<kBlocks>(th, block, row_group, m, sum[m][0]);
        if constexpr (R::kFirst) {
            place.template store<2>(th, 2 * side, row_group, m, input_sum[m][0],
                                    place.inputs - 2 * side);
        }
    }
}

// multiplied() is called when the warp has read the slots. `adds`: to what the block's pieces
// before have left, and `more` are to come; `carried`: see store_weight_sums. With a loss scale:
// when a number is not finite, *overflow = stamp.
template <class R, class Multiplied>
__device__ __forceinline__ void
weight_gradient(Thread th, int count, int features, bool adds, bool more, uint32_t carried,
                float2 *partial, unsigned *overflow, unsigned stamp, const Multiplied &multiplied) {
    th.id = computed_here(th.id);
    const WeightPlace<R> place(partial, features, adds);
    if constexpr (R::kBytes == 2) {
        const float finite = wgmma_weight_gradient<R>(th, count, place, carried, more, multiplied);
        if (R::Operand::kScaled && finite != 0.0f) {
            __stcg(overflow, stamp);
        }
    } else {
        static_assert(!R::Operand::kScaled);
        mma_weight_gradient<R>(th, count, place, multiplied);
    }
}

} // namespace rp_lstm
