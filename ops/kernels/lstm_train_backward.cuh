// Backward through time of one layer over one segment of one tile, and its weight gradients.
//
//   dc(t) = dh(t) o (1 - tanh(c)^2) + dc(t+1) f(t+1)
//   d(i, f, g, o) = dc g i(1-i), dc c(t-1) f(1-f), dc i (1-g^2), dh tanh(c) o(1-o)
//   dh(t-1) = W_h^T d(gates) + what the layer above sends      dx(t) = W_x^T d(gates)
#pragma once

#include <type_traits>

#include "lstm_train_forward.cuh"

namespace rp_lstm {

// A fragments [group][mma][k = 4 unit + gate]: rows 0-7 are this warp's 8 columns of W_h, rows
// 8-15 those of W_x, so one mma yields dh and dx of the thread's own cells. The first layer needs
// no dx: its rows 8-15 are zeros, stored all the same, as zeros made here would be moved next to
// the other operands at each mma.
template <class R> struct BackwardWeights { uint4 fragment[R::kPlanes][R::kBackwardGroups][2]; };

template <class R>
__device__ __forceinline__ void load_backward_weights(BackwardWeights<R> &w, const Thread &th,
                                                      const uint32_t *packed) {
    constexpr int kCount = R::kBackwardGroups * 2;
#pragma unroll
    for (int p = 0; p < R::kPlanes; ++p) {
        const uint4 *source =
            (const uint4 *)(packed + (R::kLayer * R::kPlanes + p) * 2 * R::kPartWords) +
            th.warp() * kCount * 32 + th.lane();
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            w.fragment[p][i >> 1][i & 1] = __ldcg(source + i * 32);
        }
    }
}

// Brings slots back from where forward_segment has offloaded them, last first, as backward reads
// them: by one thread; each of `chunks` completes a phase of its barrier, a short segment's too.
// `cells`, two numbers of each thread, come to `to` with the slots that are read first.
template <class R>
__device__ __forceinline__ void fetch_slots(const Thread &th, int chunks, int count,
                                            const uint8_t *offloaded, float2 (*to)[R::kThreads],
                                            const float2 *cells) {
    for (int chunk = chunks - 1; chunk >= 0; --chunk) {
        const int first = chunk * kChunk, slots = min(count - first, kChunk);
        const int at = first * R::kSlotBytes, bytes = max(slots, 0) * R::kSlotBytes;
        const uint32_t barrier = th.fetched + 8 * chunk;
        const bool with_cells = cells && first < count && count <= first + kChunk;
        barrier_expect(barrier, bytes + (with_cells ? 2 * sizeof *to : 0));
        if (with_cells) {
            bulk_load(shared_address(to), cells, 2 * sizeof *to, barrier);
        }
        if (bytes > 0) {
            bulk_load(th.slots + at, offloaded + at, bytes, barrier);
        }
    }
}

// Chunks first ... chunks - 1 are back.
__device__ __forceinline__ void wait_fetched(const Thread &th, int first, int chunks,
                                             uint32_t parity) {
    for (int chunk = first; chunk < chunks; ++chunk) {
        barrier_wait(th.fetched + 8 * chunk, parity);
    }
}

// What a thread carries from one time step to the one before, over segments too.
struct BackwardState {
    float dh[2], dc[2];
    float cell[2]; // c of the time step to come
    float bias[4]; // sum of d(gates) of unit, float
};

// kFetched: the slots come from device memory, and complete phase `parity` of their barriers.
template <class R, bool kFetched>
__device__ __forceinline__ void backward_segment(Thread &th, const BackwardWeights<R> &w,
                                                 const Segment &segment, const KeepBits &keep,
                                                 bool top, uint32_t parity, BackwardState &state) {
    using Op = typename R::Operand;
    constexpr int kGroups = R::kBackwardGroups;
    constexpr int kUnitBytes = 4 * R::kBytes; // of a unit's d(gates) in one row
    const int row0 = 2 * th.q(), place = th.unit() * kUnitBytes;
    const uint32_t store0 = place / kGateRow * kGatePart + row0 * kGateRow +
                            ((place % kGateRow >> 4 ^ gate_swizzle(row0)) << 4) + place % 16;
    const uint32_t fragment = th.g() * kGateRow + ((th.q() ^ gate_swizzle(th.g())) << 4);
    constexpr int kGradientStride = SharedPlan<typename R::L>::kGradientStride;
    const uint32_t below =
        R::kSendsGradient ? address_in_block(th.input_gradient, 0) + th.id * 8 : 0;
    const uint32_t below_full = R::kSendsGradient ? address_in_block(th.full, 0) : 0;

    const SegmentKeepBits kept(keep, segment);
    // Coefficients of dh and dc in the gate gradients, made one time step ahead.
    float to_o[2], to_c[2], to_i[2], to_f[2], to_g[2], forget[2];
    typename Op::Gates gates;
    float2 previous_cell;
    auto wait_fetched = [&](int t) {
        if (kFetched) {
            barrier_wait(th.fetched + t / kChunk * 8, parity);
        }
    };
    auto load = [&](int t) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        gates.load(slot, th.id, R::kThreads);
        previous_cell = load_shared_float2(slot + R::kCell + th.id * 8);
    };
    auto coefficients = [&](bool last_time_step) {
        float i[2], f[2], g[2], o[2];
        gates.get(i, f, g, o);
        const float before[2] = {previous_cell.x, previous_cell.y};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if (last_time_step) {
                state.cell[e] = fmaf(f[e], before[e], i[e] * g[e]);
            }
            const float tanh_c = Op::tanh(state.cell[e]);
            to_o[e] = tanh_c * fmaf(-o[e], o[e], o[e]);
            to_c[e] = o[e] * fmaf(-tanh_c, tanh_c, 1.0f);
            to_i[e] = g[e] * fmaf(-i[e], i[e], i[e]);
            to_f[e] = before[e] * fmaf(-f[e], f[e], f[e]);
            to_g[e] = i[e] * fmaf(-g[e], g[e], 1.0f);
            forget[e] = f[e];
            state.cell[e] = before[e];
        }
    };
    auto gradient_from_above = [&](int t) {
        return load_shared_float2(th.input_gradient + t * kGradientStride + th.id * 8);
    };
    auto add_gradient_from_above = [&](int t, const float2 &dx) {
        state.dh[0] = fmaf(dx.x, kept.factor(0, t), state.dh[0]);
        state.dh[1] = fmaf(dx.y, kept.factor(1, t), state.dh[1]);
    };

    wait_fetched(segment.count - 1);
    load(segment.count - 1);
    coefficients(top);
    if (segment.count > 1) {
        wait_fetched(segment.count - 2);
        load(segment.count - 2);
    }
    __syncthreads(); // every thread has read the gates that d(gates) of two slots overwrite
    if (R::kReceivesGradient) {
        th.receive(segment.count - 1);
        add_gradient_from_above(segment.count - 1, gradient_from_above(segment.count - 1));
    }
#pragma unroll 1
    for (int t = segment.count - 1; t >= 0; --t) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        float d[2][4];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const float dc = fmaf(state.dh[e], to_c[e], state.dc[e]);
            d[e][0] = dc * to_i[e];
            d[e][1] = dc * to_f[e];
            d[e][2] = dc * to_g[e];
            d[e][3] = state.dh[e] * to_o[e];
            state.dc[e] = dc * forget[e];
            const uint32_t row = e ? ((slot + store0) ^ R::kOddRow) + kGateRow : slot + store0;
#pragma unroll
            for (int p = 0; p < R::kPlanes; ++p) {
                store_pairs(row + p * R::kGateGradientBytes, Op::pack(d[e][0], d[e][1], p),
                            Op::pack(d[e][2], d[e][3], p));
            }
        }
        const bool product = R::kSendsGradient || segment.first + t > 0;
        if (!product) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                state.bias[k] += d[0][k] + d[1][k];
            }
            break;
        }
        if (t > 1 && (unsigned)t % kChunk == 1) { // here, where it does not hold up the loads below
            wait_fetched(t - 2);
        }
        __syncthreads(); // d(gates) of all units are in the slot
        const bool receives = R::kReceivesGradient && t > 0;
        const bool arrived = receives && th.has_arrived(t - 1);
        constexpr int kPart = (kGroups < 8 ? kGroups / 2 : 4) / R::kPlanes;
        constexpr int kParts = kGroups / kPart;
        // Two parts of the k: one arrives while the other is multiplied.
        uint4 b[2][R::kPlanes][kPart];
        auto load_part = [&](int part) {
#pragma unroll
            for (int p = 0; p < R::kPlanes; ++p) {
#pragma unroll
                for (int j = 0; j < kPart; ++j) {
                    const int group = part * kPart + j; // of 4 in a row
                    b[part & 1][p][j] = load_shared16(
                        ((slot + fragment) ^ (group & 1) << 6) + p * R::kGateGradientBytes +
                        (group >> 2) * kGatePart + (group >> 1 & 1) * 128);
                }
            }
        };
        float chain[4][4];
        auto multiply_part = [&](int part) {
#pragma unroll
            for (int j = 0; j < kPart; ++j) {
                const int group = part * kPart + j;
                float(&c0)[4] = chain[2 * (group & 1)];
                float(&c1)[4] = chain[2 * (group & 1) + 1];
                each_product<R::kPlanes>([&](int p, int q) {
                    const uint4 k = b[part & 1][q][j];
                    Op::mma(c0, w.fragment[p][group][0], k.x, k.y);
                    Op::mma(c1, w.fragment[p][group][1], k.z, k.w);
                });
            }
        };
        load_part(0);
        load_part(1);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            chain[k][0] = chain[k][1] = chain[k][2] = chain[k][3] = 0.0f;
        }
        // Nobody waits for these: they fill the time of the loads above. At t = 0 the coefficients
        // are those of slot 0 again, of no use and no harm.
        coefficients(false);
        if (t > 1) {
            load(t - 2);
        }
        float2 dx = make_float2(0.0f, 0.0f);
        if (arrived) { // known by now
            dx = gradient_from_above(t - 1);
        }
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
            multiply_part(part);
            if (part + 2 < kParts) {
                load_part(part + 2);
            }
            if (part == 0) {
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    state.bias[k] += d[0][k] + d[1][k];
                }
            }
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            state.dh[e] = (chain[0][e] + chain[1][e]) + (chain[2][e] + chain[3][e]);
        }
        if (receives) {
            th.receive(t - 1, arrived);
            if (!arrived) {
                dx = gradient_from_above(t - 1);
            }
            add_gradient_from_above(t - 1, dx);
        }
        if (R::kSendsGradient) {
            send8(below + t * kGradientStride,
                  (chain[0][2] + chain[1][2]) + (chain[2][2] + chain[3][2]),
                  (chain[0][3] + chain[1][3]) + (chain[2][3] + chain[3][3]), below_full + 8 * t);
        }
    }
}

// Sums of a unit's bias gradients over the 8 rows, to the block's bias [H][4 gates] in device
// memory: lane q ends with gate q's. `adds` to what its pieces before have left there.
template <class R>
__device__ __forceinline__ void store_bias_gradient(const Thread &th, const BackwardState &state,
                                                    float *bias, bool adds) {
    const bool odd = th.q() & 1, high = th.q() & 2;
    float pair[2]; // of gates `odd` and 2 + `odd`
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        const float even_gate = state.bias[2 * k], odd_gate = state.bias[2 * k + 1];
        pair[k] =
            (odd ? odd_gate : even_gate) + __shfl_xor_sync(~0u, odd ? even_gate : odd_gate, 1);
    }
    const float sum =
        (high ? pair[1] : pair[0]) + __shfl_xor_sync(~0u, high ? pair[0] : pair[1], 2);
    store_or_add(bias + th.id, sum, adds);
}

// The operands of d(W) for one mma depth after another: multiply(a [planes][4 m], b [planes]
// [blocks], x [planes][2 blocks]). Bases are those of chunk 0 of this lane's row; the chunk's
// number is XORed in, as slots begin on 256 bytes.
template <class R, class Multiply>
__device__ __forceinline__ void weight_products(const Thread &th, int count, int row_group,
                                                int side, int first_block, bool has_input,
                                                const Multiply &multiply) {
    constexpr int kPlanes = R::kPlanes, kBlocks = R::kColumnBlocks;
    const uint32_t column_tile = th.slots + (R::kFirst || side ? R::kPrevious : R::kInput);
    const uint32_t x_tile = th.slots + R::kInput;
    const int gate_place = row_group * 64 * R::kBytes;
    const uint32_t gate_tile = th.slots + gate_place / kGateRow * kGatePart + gate_place % kGateRow;
    if constexpr (R::kBytes == 2) {
        const int matrix = th.lane() >> 3, row = th.lane() & 7;
        const uint32_t gates =
            gate_tile + row * kGateRow + (((matrix & 1) ^ gate_swizzle(row)) << 4);
        const uint32_t columns = column_tile + row * R::kTileRow +
                                 (((first_block | matrix >> 1) ^ R::swizzle(row)) << 4);
        const uint32_t x_columns = x_tile + row * 64 + ((2 * side + (matrix >> 1)) << 4);
        // Time steps t and t + 1, or t alone and zeros.
        const auto two_time_steps = [&](int t, auto alone) {
            constexpr bool kAlone = decltype(alone)::value;
            const uint32_t a_slot = (t + (kAlone ? 0 : matrix >> 1)) * R::kSlotBytes;
            const uint32_t b_slot = (t + (kAlone ? 0 : matrix & 1)) * R::kSlotBytes;
            uint4 a[kPlanes][4];
            uint32_t b[kPlanes][kBlocks][2], x[kPlanes][2][2], v[4];
#pragma unroll
            for (int p = 0; p < kPlanes; ++p) {
#pragma unroll
                for (int n = 0; n < kBlocks; n += 2) {
                    load_matrix_transposed(((columns + b_slot) ^ n << 4) + p * R::kTileBytes, v);
                    b[p][n][0] = v[0], b[p][n][1] = v[1];
                    b[p][n + 1][0] = v[2], b[p][n + 1][1] = v[3];
                }
#pragma unroll
                for (int m = 0; m < 4; ++m) {
                    load_matrix_transposed(((gates + a_slot) ^ m << 5) + p * R::kGateGradientBytes,
                                           v);
                    a[p][m] = make_uint4(v[0], v[1], kAlone ? 0 : v[2], kAlone ? 0 : v[3]);
                }
                if (has_input) {
                    load_matrix_transposed(x_columns + b_slot + p * R::kInputBytes, v);
                    x[p][0][0] = v[0], x[p][0][1] = v[1], x[p][1][0] = v[2], x[p][1][1] = v[3];
                }
            }
            multiply(a, b, x);
        };
#pragma unroll(2 / kPlanes)
        for (int t = 0; t + 1 < count; t += 2) {
            two_time_steps(t, std::false_type());
        }
        if (count & 1) {
            two_time_steps(count - 1, std::true_type());
        }
    } else {
        // The lane's batch rows are 2q and 2q + 1; its columns are g of 8, in two chunks. h has 2
        // bytes a number: four blocks' rows, a chunk each, for ldmatrix.
        const int row = 2 * th.q();
        const uint32_t in_chunk = (th.g() & 3) * 4, chunk = th.g() >> 2;
        const uint32_t gates =
            gate_tile + row * kGateRow + ((chunk ^ gate_swizzle(row)) << 4) + in_chunk;
        const uint32_t x_columns = x_tile + side * 512 + row * 64 + th.g() * 4;
        const int tile_row = th.lane() & 7, tile_block = th.lane() >> 3;
        const uint32_t columns = column_tile + tile_row * R::kTileRow +
                                 (((first_block | tile_block) ^ R::swizzle(tile_row)) << 4);
        static_assert(kPlanes == 1 && kBlocks % 2 == 0);
#pragma unroll 1
        for (int t = 0; t < count; ++t) {
            const uint32_t slot = t * R::kSlotBytes;
            uint4 a[1][4];
            uint32_t b[1][kBlocks][2], x[1][2][2];
#pragma unroll
            for (int n = 0; n < kBlocks; n += 4) {
                uint32_t v[4];
                load_matrix_transposed((columns + slot) ^ n << 4, v);
#pragma unroll
                for (int k = 0; k < 4 && n + k < kBlocks; ++k) {
                    const uint2 rows = R::Operand::widen(v[k]);
                    b[0][n + k][0] = rows.x, b[0][n + k][1] = rows.y;
                }
            }
#pragma unroll
            for (int m = 0; m < 4; ++m) {
                const uint32_t address = (gates + slot) ^ m << 6;
                a[0][m] = make_uint4(load_shared4(address), load_shared4(address ^ 32),
                                     load_shared4((address ^ R::kOddRow) + kGateRow),
                                     load_shared4((address ^ R::kOddRow ^ 32) + kGateRow));
            }
            if (has_input) {
#pragma unroll
                for (int n = 0; n < 2; ++n) {
                    x[0][n][0] = load_shared4(x_columns + slot + n * 32);
                    x[0][n][1] = load_shared4(x_columns + slot + n * 32 + 64);
                }
            }
            multiply(a, b, x);
        }
    }
}

// d(W) [4H][columns] = sum over the segment's time steps and rows of d(gates)^T [x | h(t-1)], by
// mma with k = 8 rows of one time step, or of two with 16-bit operands; to the block's `partial` in
// fragment order. `adds` to what its pieces before have left there. multiplied() is called when the
// warp has read the slots. fp16: when a number in it is not finite, *overflow = stamp.
template <class R, class Multiplied>
__device__ __forceinline__ void weight_gradient(Thread th, int count, int features, bool adds,
                                                float2 *partial, unsigned *overflow, unsigned stamp,
                                                const Multiplied &multiplied) {
    using Op = typename R::Operand;
    th.id = computed_here(th.id);
    constexpr int kBlocks = R::kColumnBlocks;
    const int row_group = th.warp() >> 1, side = th.warp() & 1;
    const int inputs = R::kFirst ? R::input_blocks(features) : R::kHidden / 8;
    // Block c of 8 columns: [row group][16 rows][lane][2]. Layer 0: x, h; then layer 1: input, h.
    constexpr int kRowTile = 64, kColumnBlock = 4 * R::kRowGroups * kRowTile; // in float2
    partial += row_group * 4 * kRowTile + th.lane() * 2;
    const auto store = [&](int block, int m, const float(&v)[4]) {
        store_or_add((float4 *)(partial + block * kColumnBlock + m * kRowTile),
                     make_float4(v[0], v[1], v[2], v[3]), adds);
    };
    // An upper layer's even warps take the input's columns, its odd ones h(t-1)'s.
    const int first_block = R::kFirst ? side * kBlocks : 0;
    const bool has_input = R::kFirst && 2 * side < inputs;
    float sum[4][kBlocks][4] = {}, input_sum[R::kFirst ? 4 : 1][2][4] = {};
    weight_products<R>(th, count, row_group, side, first_block, has_input,
                       [&](const auto &a, const auto &b, const auto &x) {
                           each_product<R::kPlanes>([&](int p, int q) {
#pragma unroll
                               for (int m = 0; m < 4; ++m) {
#pragma unroll
                                   for (int n = 0; n < kBlocks; ++n) {
                                       Op::mma(sum[m][n], a[p][m], b[q][n][0], b[q][n][1]);
                                   }
#pragma unroll
                                   for (int n = 0; R::kFirst && n < 2; ++n) {
                                       if (has_input) {
                                           Op::mma(input_sum[R::kFirst ? m : 0][n], a[p][m],
                                                   x[q][n][0], x[q][n][1]);
                                       }
                                   }
                               }
                           });
                       });
    multiplied();

    const int before = R::kFirst ? inputs : R::input_blocks(features) + R::kHidden / 8;
    const int block = before + first_block + (R::kFirst ? 0 : side * inputs);
    float finite = 0.0f; // 0 * v is NaN when v is not finite
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < kBlocks; ++n) {
            store(block + n, m, sum[m][n]);
        }
#pragma unroll
        for (int n = 0; R::kFirst && n < 2; ++n) {
            if (2 * side + n < inputs) {
                store(2 * side + n, m, input_sum[R::kFirst ? m : 0][n]);
            }
        }
        finite = fmaf(sum[m][0][0], 0.0f, fmaf(sum[m][0][2], 0.0f, finite));
    }
    // An operand that is not finite makes all columns of its row so: one is enough.
    if (Op::kScaled && finite != 0.0f) {
        __stcg(overflow, stamp);
    }
}

} // namespace rp_lstm
