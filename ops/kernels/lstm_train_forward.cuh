// The forward pass of one layer over one segment of time steps of one tile of 8 batch rows.
//
//   i, f, o = sigmoid(W_x x(t) + W_h h(t-1) + b)     c(t) = f c(t-1) + i g
//   g       = tanh   (W_x x(t) + W_h h(t-1) + b)     h(t) = o tanh(c(t))
#pragma once

#include "lstm_train_layout.cuh"

namespace rp_lstm {

// A fragments of this warp's 32 gate rows. Tile 0 of an mma pair: rows 0-7 gate i of the warp's 8
// units, rows 8-15 gate f; tile 1: g and o. So an accumulator pair holds i, f, g, o of unit g for
// rows 2q and 2q+1, and the cell update needs no other thread.
template <class R> struct ForwardWeights {
    uint4 recurrent[R::kPlanes][R::kForwardGroups][R::kHiddenMmas][2]; // [plane][group][mma][tile]
    uint4 input[R::kPlanes][R::kInputGroups][R::kInputMmas][2];        // the same
    float bias[4];                                                     // i, f and o halved
};

template <class R>
__device__ __forceinline__ void load_forward_weights(ForwardWeights<R> &w, const Thread &th,
                                                     const uint32_t *packed,
                                                     const float *parameters, int features) {
    constexpr int kInputFragments = R::kInputGroups * R::kInputMmas * 2;
    constexpr int kFragments = R::kForwardGroups * R::kHiddenMmas * 2;
    constexpr int kInputWords = R::kFirst ? R::kInputPartWords : R::kPartWords;
    const uint32_t *part =
        packed + (R::kFirst ? 0 : R::kPlanes * (R::kInputPartWords + R::kPartWords));
    const auto load = [&](auto &fragments, const uint32_t *words, int count, int mmas) {
        const uint4 *source = (const uint4 *)words + th.warp() * count * 32 + th.lane();
#pragma unroll
        for (int i = 0; i < count; ++i) {
            fragments[i / 2 / mmas][i / 2 % mmas][i & 1] = __ldcg(source + i * 32);
        }
    };
#pragma unroll
    for (int p = 0; p < R::kPlanes; ++p) {
        load(w.input[p], part + p * kInputWords, kInputFragments, R::kInputMmas);
        load(w.recurrent[p], part + R::kPlanes * kInputWords + p * R::kPartWords, kFragments,
             R::kHiddenMmas);
    }
    const float *bias =
        parameters + layer_offsets(R::kLayer, features, R::kHidden).bias + th.unit();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        w.bias[k] = (__ldcg(bias + k * R::kHidden) + __ldcg(bias + (4 + k) * R::kHidden)) *
                    (k == 2 ? 1.0f : 0.5f);
    }
}

// Bit t of row[e]: time step t of this thread's unit in row 2q + e passes the dropout.
struct KeepBits {
    uint64_t row[2];
    float scale;
};
// The same for a segment, whose time steps fit in one register.
struct SegmentKeepBits {
    uint32_t row[2];
    float scale;
    __device__ __forceinline__ SegmentKeepBits(const KeepBits &keep, const Segment &segment)
        : row{(uint32_t)(keep.row[0] >> segment.first), (uint32_t)(keep.row[1] >> segment.first)},
          scale(keep.scale) {}
    __device__ __forceinline__ float factor(int e, int t) const {
        return row[e] >> t & 1u ? scale : 0.0f;
    }
};

// input_depth: elements of x. cell and hidden: c and h of the thread's two cells before the
// segment, and then after it. kOffloads: what backward reads of the slots goes to the same places
// of `offloaded`, in device memory; in shared memory they keep h alone.
template <class R, bool kOffloads>
__device__ __forceinline__ void forward_segment(Thread &th, const ForwardWeights<R> &w,
                                                const Segment &segment, const KeepBits &keep,
                                                int input_depth, float (&cell)[2],
                                                float (&hidden)[2], uint8_t *offloaded) {
    using Op = typename R::Operand;
    constexpr int kGroups = R::kForwardGroups, kInputGroups = R::kInputGroups;
    constexpr int kPlanes = R::kPlanes, kBytes = 2, kChunk = 16 / kBytes; // of h in 16 bytes
    // Tiles begin on multiples of their size, so that an XOR works on whole addresses.
    const int row0 = 2 * th.q();
    const int chunk = th.unit() / kChunk;
    const uint32_t store0 = chunk_place<R::kTileRow>(row0, chunk) + th.unit() % kChunk * kBytes;
    const int pair_row = row0 + (th.g() & 1); // even units send row 2q, odd ones row 2q + 1
    const uint32_t send_offset =
        chunk_place<R::kTileRow>(pair_row, chunk) + th.unit() % kChunk / 2 * (2 * kBytes);
    const uint32_t fragment = chunk_place<R::kTileRow>(th.g(), th.q());
    const uint32_t input_fragment = R::kBytes == 2 ? fragment : th.g() * 64 + th.q() * 16;
    // The layer above keeps its slots at the same distance from its own first one.
    using Above = Role<typename R::L, false, true>;
    const uint32_t above = R::kLast ? 0 : address_in_block(th.slots, 1) + Above::kInput;
    const uint32_t above_full = R::kLast ? 0 : address_in_block(th.full, 1);

    const SegmentKeepBits kept(keep, segment);
    float accumulator[2][2][4]; // [chain][tile][fragment]; two chains hide the mma's latency
    uint4 input[kPlanes][kInputGroups] = {}, previous[kPlanes][kGroups];
    auto load_tiles = [&](auto &tiles, uint32_t address) {
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
#pragma unroll
            for (int j = 0; j < kGroups; ++j) {
                tiles[p][j] = load_shared16(((address + fragment) ^ j << 6) + p * R::kTileBytes);
            }
        }
    };
    auto load_input = [&](int t) {
        const uint32_t slot = th.slots + t * R::kSlotBytes + R::kInput;
        if (R::kFirst) {
#pragma unroll
            for (int j = 0; j < kPlanes * kInputGroups; ++j) {
                const int plane = j / kInputGroups, group = j % kInputGroups;
                if (group == 0 || input_depth > 2 * group * R::kDepth) {
                    input[plane][group] =
                        load_shared16(slot + input_fragment + plane * R::kInputBytes + group * 512);
                }
            }
        } else {
            th.receive(t);
            load_tiles(input, slot);
        }
    };
    auto input_product = [&]() {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            accumulator[0][m][0] = accumulator[0][m][1] = w.bias[2 * m];
            accumulator[0][m][2] = accumulator[0][m][3] = w.bias[2 * m + 1];
            accumulator[1][m][0] = accumulator[1][m][1] = 0.0f;
            accumulator[1][m][2] = accumulator[1][m][3] = 0.0f;
        }
#pragma unroll
        for (int j = 0; j < kInputGroups; ++j) {
#pragma unroll
            for (int s = 0; s < R::kInputMmas; ++s) {
                const int before = 2 * j + s; // mma of x
                if (!R::kFirst || before == 0 || input_depth > before * R::kDepth) {
                    each_product<kPlanes>([&](int p, int q) {
                        const uint2 b = R::kFirst ? half_of_chunk(input[q][j], s)
                                                  : Op::hidden_operand(input[q][j], s);
#pragma unroll
                        for (int m = 0; m < 2; ++m) {
                            Op::mma(accumulator[s & 1][m], w.input[p][j][s][m], b.x, b.y);
                        }
                    });
                }
            }
        }
    };
    typename Op::Gates gates = {};
    typename Op::Cells previous_cells = {};
    // What the rest of the step does not wait for: keep the gates, send h up. In the segment's
    // first time step there is nothing to save yet: it `sends` nothing, and the next call
    // overwrites what it keeps. Without that call the first time step would be a second copy of the
    // code, which takes longer to fetch.
    auto save = [&](int t, bool sends) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        if (!R::kLast) {
            float dropped[2];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                dropped[e] = hidden[e] * kept.factor(e, t);
            }
            const bool odd = th.g() & 1;
            const float mine = odd ? dropped[1] : dropped[0];
            const float neighbours = __shfl_xor_sync(~0u, odd ? dropped[0] : dropped[1], 4);
#pragma unroll
            for (int p = 0; p < kPlanes && sends; ++p) {
                send_pair(above + t * Above::kSlotBytes + send_offset + p * R::kTileBytes,
                          Op::pack_hidden(odd ? neighbours : mine, odd ? mine : neighbours, p),
                          above_full + 8 * t);
            }
        }
        if (kOffloads) {
            uint8_t *const copy = offloaded + t * R::kSlotBytes;
            gates.store(copy, th.id, R::kThreads);
            previous_cells.store(copy + R::kCell, th.id);
        } else {
            gates.store(slot, th.id, R::kThreads);
            previous_cells.store(slot + R::kCell, th.id);
        }
    };
    // By one warp: all have the same.
    auto offload_tiles = [&](int t) {
        uint8_t *const copy = offloaded + t * R::kSlotBytes;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
#pragma unroll
            for (int j = 0; j < kGroups; ++j) {
                const uint32_t place = (R::kPrevious + fragment) ^ j << 6;
                __stcs((uint4 *)(copy + place + p * R::kTileBytes), previous[p][j]);
            }
#pragma unroll
            for (int j = 0; j < kInputGroups; ++j) {
                const uint32_t place = R::kFirst ? R::kInput + input_fragment + j * 512
                                                 : (R::kInput + fragment) ^ j << 6;
                __stcs((uint4 *)(copy + place + p * R::kInputPlane), input[p][j]);
            }
        }
    };
    auto store_hidden = [&](int t) { // where time step t looks for h(t-1)
        const uint32_t place = th.slots + t * R::kSlotBytes + R::kPrevious + store0;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
            store_apart(place + p * R::kTileBytes, (place ^ kOddRow<R::kTileRow>)+p * R::kTileBytes,
                        Op::pack_hidden(hidden[0], hidden[1], p));
        }
    };

    auto time_step = [&](int t) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        __syncthreads(); // h(t-1) of all warps is in this slot
        load_tiles(previous, slot + R::kPrevious);
        if (!R::kFirst) { // fills the time of these loads
            input_product();
        }
#pragma unroll
        for (int j = 0; j < kGroups; ++j) {
#pragma unroll
            for (int s = 0; s < R::kHiddenMmas; ++s) {
                each_product<kPlanes>([&](int p, int q) {
                    const uint2 b = Op::hidden_operand(previous[q][j], s);
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        Op::mma(accumulator[s & 1][m], w.recurrent[p][j][s][m], b.x, b.y);
                    }
                });
            }
        }
        save(max(t - 1, 0), t > 0);
        if (kOffloads && th.warp() == t % R::kWarps) {
            offload_tiles(t);
        }
        if (t + 1 < segment.count) {
            load_input(t + 1); // while the product is at work
        }
        float sums[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                sums[m][k] = accumulator[0][m][k] + accumulator[1][m][k];
            }
        }
        if (R::kFirst) { // of the next time step, short enough to go beside the gates of this one
            input_product();
        }
        float i[2], f[2], g[2], o[2], kept_i[2], kept_f[2], kept_o[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            i[e] = Op::sigmoid_of_double(sums[0][e], kept_i[e]);
            g[e] = Op::tanh(sums[1][e]);
            f[e] = Op::sigmoid_of_double(sums[0][2 + e], kept_f[e]);
            o[e] = Op::sigmoid_of_double(sums[1][2 + e], kept_o[e]);
        }
        previous_cells.set(cell[0], cell[1]);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            cell[e] = fmaf(f[e], cell[e], i[e] * g[e]);
            hidden[e] = o[e] * Op::tanh(cell[e]);
        }
        gates.set(kept_i, kept_f, g, kept_o);
        if (t + 1 < segment.count) {
            store_hidden(t + 1);
        }
    };
    store_hidden(0);
    load_input(0);
    if (R::kFirst) {
        input_product();
    }
#pragma unroll 1
    for (int t = 0; t < segment.count; ++t) {
        time_step(t);
    }
    save(segment.count - 1, true);
    if (!R::kFirst) {
        th.finish_receiving();
    }
}

// Features f and f + 1 of `width` of a row, in the tile of x at `tile`; f is even.
template <class R>
__device__ __forceinline__ void store_input(uint32_t tile, int row, int f, int width, float first,
                                            float second) {
    using Op = typename R::Operand;
#pragma unroll
    for (int p = 0; p < R::kPlanes; ++p) {
        store_pair(tile + R::input_place(row, f) + p * R::kInputBytes, Op::pack(first, second, p));
    }
    if (R::has_low_parts(width)) {
        const int run = R::input_run(width);
        store_pair(tile + R::input_place(row, run + f), Op::pack(first, second, 0));
        store_pair(tile + R::input_place(row, 2 * run + f), Op::pack(first, second, 1));
    }
}

// x of the segment for the tile whose windows end at `ends`[8] (-1: no such row), in shared memory.
// Little code, as it is fetched anew for each tile.
template <class R>
__device__ __forceinline__ void load_segment_input(const Thread &th, const int *ends,
                                                   const Segment &segment, const float *features,
                                                   int width, int time_steps) {
#pragma unroll 1
    for (int at = th.id; at < kRows * segment.count; at += R::kThreads) {
        const int row = at % kRows, t = at / kRows, end = ends[row];
        const int from = end + 1 - time_steps + segment.first + t;
        const float *source = features + (int64_t)from * width;
        const uint32_t tile = th.slots + t * R::kSlotBytes + R::kInput;
#pragma unroll 1
        for (int f = 0; f < width; f += 4) {
            float x[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) { // all are asked for before the first is used
                x[i] = end >= 0 && f + i < width ? __ldg(source + f + i) : 0.0f;
            }
            store_input<R>(tile, row, f, width, x[0], x[1]);
            if (f + 2 < width) {
                store_input<R>(tile, row, f + 2, width, x[2], x[3]);
            }
        }
    }
}

} // namespace rp_lstm
