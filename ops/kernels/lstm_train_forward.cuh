// The forward pass of one layer over one segment of time steps of one tile of 8 batch rows.
//
//   i, f, o = sigmoid(W_x x(t) + W_h h(t-1) + b)     c(t) = f c(t-1) + i g
//   g       = tanh   (W_x x(t) + W_h h(t-1) + b)     h(t) = o tanh(c(t))
#pragma once

#include <type_traits>

#include "lstm_train_layout.cuh"

namespace rp_lstm {

// A fragments of this warp's 32 gate rows. Tile 0 of an mma pair: rows 0-7 gate i of the warp's 8
// units, rows 8-15 gate f; tile 1: g and o. So an accumulator pair holds i, f, g, o of unit g for
// rows 2q and 2q+1, and the cell update needs no other thread.
template <class R> struct ForwardWeights {
    uint4 recurrent[R::kForwardGroups][R::kHiddenMmas][2]; // [group][mma][tile]
    uint4 input[R::kInputGroups][R::kInputMmas][2];        // the same
    float bias[4];                                         // i, f and o halved
};

template <class R>
__device__ __forceinline__ void load_forward_weights(ForwardWeights<R> &w, const Thread &th,
                                                     const uint32_t *packed,
                                                     const float *parameters, int features) {
    constexpr int kInputFragments = R::kInputGroups * R::kInputMmas * 2;
    constexpr int kFragments = R::kForwardGroups * R::kHiddenMmas * 2;
    constexpr int kInputWords = R::kFirst ? R::kInputPartWords : R::kPartWords;
    const uint32_t *part = packed + (R::kFirst ? 0 : R::kInputPartWords + R::kPartWords);
    const uint4 *input = (const uint4 *)part + th.warp() * kInputFragments * 32 + th.lane();
#pragma unroll
    for (int i = 0; i < kInputFragments; ++i) {
        w.input[i / 2 / R::kInputMmas][i / 2 % R::kInputMmas][i & 1] = __ldcg(input + i * 32);
    }
    const uint4 *recurrent =
        (const uint4 *)(part + kInputWords) + th.warp() * kFragments * 32 + th.lane();
#pragma unroll
    for (int i = 0; i < kFragments; ++i) {
        w.recurrent[i / 2 / R::kHiddenMmas][i / 2 % R::kHiddenMmas][i & 1] =
            __ldcg(recurrent + i * 32);
    }
    const float *bias =
        parameters + layer_offsets(R::kLayer, features, R::kHidden).bias + th.unit();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        w.bias[k] = (__ldcg(bias + k * R::kHidden) + __ldcg(bias + (4 + k) * R::kHidden)) *
                    (k == 2 ? 1.0f : 0.5f);
    }
}

// Bit t of cell[e]: time step t of this thread's cell passes the dropout.
template <class L> struct KeepBits {
    uint64_t cell[L::kCells];
    float scale;
};
// The same for a segment, whose time steps fit in one register.
template <class L> struct SegmentKeepBits {
    uint32_t cell[L::kCells];
    float scale;
    __device__ __forceinline__ SegmentKeepBits(const KeepBits<L> &keep, const Segment &segment)
        : scale(keep.scale) {
#pragma unroll
        for (int e = 0; e < L::kCells; ++e) {
            cell[e] = (uint32_t)(keep.cell[e] >> segment.first);
        }
    }
    __device__ __forceinline__ float factor(int e, int t) const {
        return cell[e] >> t & 1u ? scale : 0.0f;
    }
};

// cell and hidden: c and h of the thread's cells before the segment, and then after it. kKeeps:
// the slots get what backward reads; else only h and what goes to the layer above.
template <class R, bool kKeeps>
__device__ __forceinline__ void
forward_segment(Thread &th, const ForwardWeights<R> &w, const Segment &segment,
                const KeepBits<typename R::L> &keep, int features, float (&cell)[R::kCells],
                float (&hidden)[R::kCells]) {
    using Op = typename R::Operand;
    constexpr int kGroups = R::kForwardGroups, kInputGroups = R::kInputGroups;
    constexpr int kBytes = R::kHiddenBytes, kChunk = 16 / kBytes; // of h in 16 bytes
    constexpr int N = R::kAbreast;
    // Slots begin on 256 bytes, so that an XOR with the chunk's number works on whole addresses.
    const int row0 = 2 * th.q();
    const int chunk = th.unit() / kChunk;
    const uint32_t store0 =
        row0 * R::kTileRow + ((chunk ^ R::swizzle(row0)) << 4) + th.unit() % kChunk * kBytes;
    const int pair_row = row0 + (th.g() & 1); // even units send row 2q, odd ones row 2q + 1
    const uint32_t send_offset = pair_row * R::kTileRow + ((chunk ^ R::swizzle(pair_row)) << 4) +
                                 th.unit() % kChunk / 2 * (2 * kBytes);
    const uint32_t fragment = th.g() * R::kTileRow + ((th.q() ^ R::swizzle(th.g())) << 4);
    const uint32_t input_fragment = th.g() * 64 + th.q() * 16;
    // The layer above keeps its slots at the same distance from its own first one.
    using Above = Role<typename R::L, false, true>;
    const uint32_t above = R::kLast ? 0 : address_in_block(th.slots, 1) + Above::kInput;
    const uint32_t above_full = R::kLast ? 0 : address_in_block(th.full, 1);

    const SegmentKeepBits<typename R::L> kept(keep, segment);
    float accumulator[N][2][2][4]; // [.][chain][tile][fragment]; two chains hide the mma's latency
    uint4 input[N][kInputGroups];
    // `arrived`: the layer below was seen to have sent its h(t).
    auto load_input = [&](int t, const bool(&arrived)[N]) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const uint32_t slot = th.slots + (t * N + n) * R::kSlotBytes + R::kInput;
            if (R::kFirst) {
#pragma unroll
                for (int j = 0; j < kInputGroups; ++j) {
                    if (j == 0 || features > 2 * j * R::kDepth) {
                        input[n][j] = load_shared16(slot + input_fragment + j * 512);
                    }
                }
            } else {
                th.receive(t * N + n, arrived[n]);
#pragma unroll
                for (int j = 0; j < kInputGroups; ++j) {
                    input[n][j] = load_shared16((slot + fragment) ^ j << 6);
                }
            }
        }
    };
    auto input_product = [&](int n) {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            float(&bias)[4] = accumulator[n][0][m];
            bias[0] = bias[1] = w.bias[2 * m];
            bias[2] = bias[3] = w.bias[2 * m + 1];
            float(&zero)[4] = accumulator[n][1][m];
            zero[0] = zero[1] = zero[2] = zero[3] = 0.0f;
        }
#pragma unroll
        for (int j = 0; j < kInputGroups; ++j) {
#pragma unroll
            for (int s = 0; s < R::kInputMmas; ++s) {
                const int before = 2 * j + s; // mma of x that take 2 j + s times as many features
                if (!R::kFirst || before == 0 || features > before * R::kDepth) {
                    const uint2 b = R::kFirst ? half_of_chunk(input[n][j], s)
                                              : Op::hidden_operand(input[n][j], s);
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        Op::mma(accumulator[n][s & 1][m], w.input[j][s][m], b.x, b.y);
                    }
                }
            }
        }
    };
    typename Op::Gates gates[N];
    float previous_cell[R::kCells];
#pragma unroll
    for (int e = 0; e < R::kCells; ++e) {
        previous_cell[e] = 0.0f;
    }
    // What the rest of the step does not wait for: keep the gates, send h up.
    auto save = [&](int t, int n) {
        const uint32_t slot = th.slots + (t * N + n) * R::kSlotBytes;
        if (!R::kLast) {
            float dropped[2];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                dropped[e] = hidden[2 * n + e] * kept.factor(2 * n + e, t);
            }
            const bool odd = th.g() & 1;
            const float mine = odd ? dropped[1] : dropped[0];
            const float neighbours = __shfl_xor_sync(~0u, odd ? dropped[0] : dropped[1], 4);
            send_pair(above + (t * N + n) * Above::kSlotBytes + send_offset,
                      Op::pack_hidden(odd ? neighbours : mine, odd ? mine : neighbours),
                      above_full + 8 * (t * N + n));
        }
        if (kKeeps) {
            gates[n].store(slot, th.id, R::kThreads);
            store_shared_float2(slot + R::kCell + th.id * 8, previous_cell[2 * n],
                                previous_cell[2 * n + 1]);
        }
    };
    auto store_hidden = [&](int t) { // where time step t looks for h(t-1)
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const uint32_t place = th.slots + (t * N + n) * R::kSlotBytes + R::kPrevious + store0;
            store_apart(place, R::odd_row(place),
                        Op::pack_hidden(hidden[2 * n], hidden[2 * n + 1]));
        }
    };
    auto update_cells = [&](int n) {
        float i[2], f[2], g[2], o[2], kept_i[2], kept_f[2], kept_o[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const auto sum = [&](int m, int k) {
                return accumulator[n][0][m][k] + accumulator[n][1][m][k];
            };
            i[e] = Op::sigmoid_of_double(sum(0, e), kept_i[e]);
            g[e] = Op::tanh(sum(1, e));
            f[e] = Op::sigmoid_of_double(sum(0, 2 + e), kept_f[e]);
            o[e] = Op::sigmoid_of_double(sum(1, 2 + e), kept_o[e]);
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            float &c = cell[2 * n + e];
            previous_cell[2 * n + e] = c;
            c = fmaf(f[e], c, i[e] * g[e]);
            hidden[2 * n + e] = o[e] * Op::tanh(c);
        }
        gates[n].set(kept_i, kept_f, g, kept_o);
    };

    auto time_step = [&](int t, auto first) {
        const uint32_t slot = th.slots + t * N * R::kSlotBytes;
        __syncthreads(); // h(t-1) of all warps is in this slot
        uint4 previous[N][kGroups];
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int j = 0; j < kGroups; ++j) {
                previous[n][j] =
                    load_shared16((slot + n * R::kSlotBytes + R::kPrevious + fragment) ^ j << 6);
            }
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            input_product(n);
            if (!decltype(first)::value) {
                save(t - 1, n);
            }
        }
        bool arrived[N];
#pragma unroll
        for (int n = 0; n < N; ++n) {
            arrived[n] = !R::kFirst && t + 1 < segment.count && th.has_arrived((t + 1) * N + n);
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int j = 0; j < kGroups; ++j) {
#pragma unroll
                for (int s = 0; s < R::kHiddenMmas; ++s) {
                    const uint2 b = Op::hidden_operand(previous[n][j], s);
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        Op::mma(accumulator[n][s & 1][m], w.recurrent[j][s][m], b.x, b.y);
                    }
                }
            }
        }
#pragma unroll
        for (int n = 0; n < N; ++n) {
            update_cells(n);
        }
        if (t + 1 < segment.count) {
            store_hidden(t + 1);
            load_input(t + 1, arrived);
        }
    };
    store_hidden(0);
    const bool unknown[N] = {};
    load_input(0, unknown);
    time_step(0, std::true_type());
#pragma unroll 1
    for (int t = 1; t < segment.count; ++t) {
        time_step(t, std::false_type());
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
        save(segment.count - 1, n);
    }
}

// x of the segment for the tile whose windows end at `ends`[kRows] (-1: no such row), in shared
// memory.
template <class R>
__device__ __forceinline__ void load_segment_input(const Thread &th, const int *ends,
                                                   const Segment &segment, const float *features,
                                                   int width, int time_steps) {
    const int count = segment.count * width;
    const float inv_width = 1.0f / (float)width;
    for (int row = th.warp(); row < R::kRows; row += R::kWarps) {
        const int end = ends[row];
        const float *source = features + ((int64_t)end + 1 - time_steps + segment.first) * width;
        const uint32_t slot =
            th.slots + row / kMmaRows * R::kSlotBytes + R::kInput + row % kMmaRows * 64;
#pragma unroll 4
        for (int at = th.lane(); at < count; at += 32) {
            const float x = end < 0 ? 0.0f : __ldg(source + at);
            const int t = (int)(((float)at + 0.5f) * inv_width), f = at - t * width; // at / width
            store_first(slot + t * R::kAbreast * R::kSlotBytes + R::feature_place(f),
                        R::Operand::pack(x, 0.0f));
        }
    }
}

} // namespace rp_lstm
