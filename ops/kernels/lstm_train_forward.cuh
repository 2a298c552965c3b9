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

// Where a tile lies in shared memory: of its time step 0, and from one to the next.
struct TilePlace {
    uint32_t previous, input; // h(t-1), and x or the layer below's h(t)
    int stride;
};
template <class R> __device__ __forceinline__ TilePlace slots_place(uint32_t slots) {
    return {slots + R::kPrevious, slots + R::kInput, R::kSlotBytes};
}
// Of a second tile, which keeps h and the input alone: beside the slots.
template <class R> __device__ __forceinline__ TilePlace beside_place(uint32_t input_gradient) {
    return {input_gradient, input_gradient + R::kTileBytes, R::kInputGradientBytes};
}

// A tile in its forward pass over one segment: what a thread has of it. input_depth: elements of x.
// kOffloads: what backward
// reads of the slots goes to the same places of `offloaded`, in device memory; in shared memory
// they keep h and the input alone.
template <class R, bool kOffloads> struct ForwardTile {
    using Op = typename R::Operand;
    static constexpr int kGroups = R::kForwardGroups, kInputGroups = R::kInputGroups;
    static constexpr int kPlanes = R::kPlanes;
    static constexpr int kBytes = 2, kChunk = 16 / kBytes; // of h in 16 bytes
    TilePlace place, above; // above: of the layer above, in its block
    uint8_t *offloaded;
    SegmentKeepBits kept;
    float cell[2], hidden[2];   // c and h of the thread's two cells, before the segment and after
    float accumulator[2][2][4]; // [chain][tile][fragment]; two chains hide the mma's latency
    float of_input[2][2][4];    // the same before W_h h(t-1) is added
    uint4 input[kPlanes][kInputGroups], previous[kPlanes][kGroups];
    typename Op::Gates gates;
    typename Op::Cells previous_cells;

    __device__ __forceinline__ ForwardTile(const TilePlace &in_shared, const TilePlace &of_above,
                                           uint8_t *copy, const SegmentKeepBits &mask)
        : place(in_shared), above(of_above), offloaded(copy),
          kept(mask), input{}, gates{}, previous_cells{} {}

    static __device__ __forceinline__ uint32_t fragment(const Thread &th) {
        return chunk_place<R::kTileRow>(th.g(), th.q());
    }
    static __device__ __forceinline__ uint32_t input_fragment(const Thread &th) {
        return R::kBytes == 2 ? fragment(th) : th.g() * 64 + th.q() * 16;
    }
    __device__ __forceinline__ void load_tiles(const Thread &th, uint4 (&tiles)[kPlanes][kGroups],
                                               uint32_t address) const {
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
#pragma unroll
            for (int j = 0; j < kGroups; ++j) {
                tiles[p][j] =
                    load_shared16(((address + fragment(th)) ^ j << 6) + p * R::kTileBytes);
            }
        }
    }
    __device__ __forceinline__ void load_previous(const Thread &th, int t) {
        load_tiles(th, previous, place.previous + t * place.stride);
    }
    __device__ __forceinline__ void load_input(const Thread &th, int t, int input_depth) {
        const uint32_t tile = place.input + t * place.stride;
        if constexpr (R::kFirst) {
#pragma unroll
            for (int j = 0; j < kPlanes * kInputGroups; ++j) {
                const int plane = j / kInputGroups, group = j % kInputGroups;
                if (group == 0 || input_depth > 2 * group * R::kDepth) {
                    input[plane][group] = load_shared16(tile + input_fragment(th) +
                                                        plane * R::kInputBytes + group * 512);
                }
            }
        } else {
            load_tiles(th, input, tile);
        }
    }
    // A chain's first product is added to what it begins with, without a copy of that.
    __device__ __forceinline__ void add_input_product(const ForwardWeights<R> &w, int input_depth,
                                                      int j) {
#pragma unroll
        for (int s = 0; s < R::kInputMmas; ++s) {
            const int before = 2 * j + s;   // mma of x
            if (R::kFirst && before == 1) { // which may not be
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    of_input[1][m][0] = of_input[1][m][1] = 0.0f;
                    of_input[1][m][2] = of_input[1][m][3] = 0.0f;
                }
            }
            if (!R::kFirst || before == 0 || input_depth > before * R::kDepth) {
                each_product<kPlanes>([&](int p, int q) {
                    const uint2 b = R::kFirst ? half_of_chunk(input[q][j], s)
                                              : Op::hidden_operand(input[q][j], s);
#pragma unroll
                    for (int m = 0; m < 2; ++m) {
                        float(&sum)[4] = of_input[s & 1][m];
                        const float low = w.bias[2 * m], high = w.bias[2 * m + 1];
                        const float bias[4] = {low, low, high, high}, zero[4] = {};
                        if (j > 0 || s > 1 || p + q > 0) {
                            Op::mma(sum, w.input[p][j][s][m], b.x, b.y, sum);
                        } else {
                            Op::mma(sum, w.input[p][j][s][m], b.x, b.y, s == 0 ? bias : zero);
                        }
                    }
                });
            }
        }
    }
    __device__ __forceinline__ void input_product(const ForwardWeights<R> &w, int input_depth) {
#pragma unroll
        for (int j = 0; j < kInputGroups; ++j) {
            add_input_product(w, input_depth, j);
        }
    }
    // The part of it that follows a stage of another tile's update, or of this one's.
    __device__ __forceinline__ void input_product_beside(const ForwardWeights<R> &w,
                                                         int input_depth, int stage,
                                                         const ProductOrder &order, float number) {
        if (stage < kInputGroups) {
            order.after(number, input[0][stage].x);
            add_input_product(w, input_depth, stage);
        }
    }
    __device__ __forceinline__ void add_recurrent_product(const ForwardWeights<R> &w, int j) {
#pragma unroll
        for (int s = 0; s < R::kHiddenMmas; ++s) {
            each_product<kPlanes>([&](int p, int q) {
                const uint2 b = Op::hidden_operand(previous[q][j], s);
#pragma unroll
                for (int m = 0; m < 2; ++m) {
                    const bool begins = j == 0 && s < 2 && p + q == 0;
                    float(&sum)[4] = accumulator[s & 1][m];
                    Op::mma(sum, w.recurrent[p][j][s][m], b.x, b.y,
                            begins ? of_input[s & 1][m] : sum);
                }
            });
        }
    }
    __device__ __forceinline__ void recurrent_product(const ForwardWeights<R> &w) {
#pragma unroll
        for (int j = 0; j < kGroups; ++j) {
            add_recurrent_product(w, j);
        }
    }
    // Both, the part that follows a stage of another tile's update.
    __device__ __forceinline__ void product_beside(const ForwardWeights<R> &w, int input_depth,
                                                   int stage, const ProductOrder &order,
                                                   float number) {
        input_product_beside(w, input_depth, stage, order, number);
        const int group = stage - kInputGroups;
        if (group >= 0 && group < kGroups) {
            order.after(number, previous[0][group].x);
            add_recurrent_product(w, group);
        }
    }
    // after(stage, a number of it), stages 0 to 3.
    template <class After> __device__ __forceinline__ void update_cells(const After &after) {
        float i[2], f[2], g[2], o[2], kept_i[2], kept_f[2], kept_o[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const auto sum = [&](int m, int k) {
                return accumulator[0][m][k] + accumulator[1][m][k];
            };
            i[e] = Op::sigmoid_of_double(sum(0, e), kept_i[e]);
            g[e] = Op::tanh(sum(1, e));
            f[e] = Op::sigmoid_of_double(sum(0, 2 + e), kept_f[e]);
            o[e] = Op::sigmoid_of_double(sum(1, 2 + e), kept_o[e]);
            after(e, kept_o[e]);
        }
        previous_cells.set(cell[0], cell[1]);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            cell[e] = fmaf(f[e], cell[e], i[e] * g[e]);
            const float tanh_c = Op::tanh(cell[e]);
            after(2 + e, tanh_c);
            hidden[e] = o[e] * tanh_c;
        }
        gates.set(kept_i, kept_f, g, kept_o);
    }
    // Where time step t looks for h(t-1).
    __device__ __forceinline__ void store_hidden(const Thread &th, int t) const {
        const uint32_t at = place.previous + t * place.stride +
                            chunk_place<R::kTileRow>(2 * th.q(), th.unit() / kChunk) +
                            th.unit() % kChunk * kBytes;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
            store_apart(at + p * R::kTileBytes, (at ^ kOddRow<R::kTileRow>)+p * R::kTileBytes,
                        Op::pack_hidden(hidden[0], hidden[1], p));
        }
    }
    // What the rest of the step does not wait for: keep the gates, send h up. In the segment's
    // first time step there is nothing to save yet: it `sends` nothing, and the next call
    // overwrites what it keeps. Without that call the first time step would be a second copy of the
    // code, which takes longer to fetch.
    __device__ __forceinline__ void save(const Thread &th, int t, bool sends, uint32_t above_full) {
        if (!R::kLast) {
            float dropped[2];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                dropped[e] = hidden[e] * kept.factor(e, t);
            }
            const bool odd = th.g() & 1; // even units send row 2q, odd ones row 2q + 1
            const float mine = odd ? dropped[1] : dropped[0];
            const float neighbours = __shfl_xor_sync(~0u, odd ? dropped[0] : dropped[1], 4);
            const uint32_t to =
                above.input + t * above.stride +
                chunk_place<R::kTileRow>(2 * th.q() + (th.g() & 1), th.unit() / kChunk) +
                th.unit() % kChunk / 2 * (2 * kBytes);
#pragma unroll
            for (int p = 0; p < kPlanes && sends; ++p) {
                send_pair(to + p * R::kTileBytes,
                          Op::pack_hidden(odd ? neighbours : mine, odd ? mine : neighbours, p),
                          above_full + 8 * t);
            }
        }
        if (kOffloads) {
            uint8_t *const copy = offloaded + t * R::kSlotBytes;
            gates.store(copy, th.id, R::kThreads);
            previous_cells.store(copy + R::kCell, th.id);
        } else {
            const uint32_t slot = th.slots + t * R::kSlotBytes;
            gates.store(slot, th.id, R::kThreads);
            previous_cells.store(slot + R::kCell, th.id);
        }
    }
    // By one warp, in turn: all have the same.
    __device__ __forceinline__ void offload_tiles(const Thread &th, int t, int turn) const {
        if (!kOffloads || th.warp() != turn % R::kWarps) {
            return;
        }
        uint8_t *const copy = offloaded + t * R::kSlotBytes;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
#pragma unroll
            for (int j = 0; j < kGroups; ++j) {
                const uint32_t at = (R::kPrevious + fragment(th)) ^ j << 6;
                __stcg((uint4 *)(copy + at + p * R::kTileBytes), previous[p][j]);
            }
#pragma unroll
            for (int j = 0; j < kInputGroups; ++j) {
                const uint32_t at = R::kFirst ? R::kInput + input_fragment(th) + j * 512
                                              : (R::kInput + fragment(th)) ^ j << 6;
                __stcg((uint4 *)(copy + at + p * R::kInputPlane), input[p][j]);
            }
        }
    }
};

// Receives and loads the input of time step t, of one tile or of two side by side.
template <class R, class... Tiles>
__device__ __forceinline__ void load_inputs(Thread &th, int t, int input_depth, Tiles &...tiles) {
    if (!R::kFirst) {
        th.receive(t);
    }
    (tiles.load_input(th, t, input_depth), ...);
}

template <class R, class Tile>
__device__ __forceinline__ void forward_segment(Thread &th, const ForwardWeights<R> &w,
                                                const Segment &segment, const ProductOrder &order,
                                                int input_depth, Tile &tile) {
    // The layer above keeps its slots at the same distance from its own first one.
    const uint32_t above_full = R::kLast ? 0 : address_in_block(th.full, 1);
    tile.store_hidden(th, 0);
    load_inputs<R>(th, 0, input_depth, tile);
    tile.input_product(w, input_depth);
#pragma unroll 1
    for (int t = 0; t < segment.count; ++t) {
        __syncthreads(); // h(t-1) of all warps is in its place
        tile.load_previous(th, t);
        tile.save(th, max(t - 1, 0), t > 0, above_full);
        tile.recurrent_product(w);
        tile.offload_tiles(th, t, t);
        if (t + 1 < segment.count) {
            load_inputs<R>(th, t + 1, input_depth, tile); // while the product is at work
        }
        tile.update_cells([&](int stage, float number) {
            tile.input_product_beside(w, input_depth, stage, order, number);
        });
        if (t + 1 < segment.count) {
            tile.store_hidden(th, t + 1);
        }
    }
    tile.save(th, segment.count - 1, true, above_full);
}

// Two tiles side by side: while one's cells are updated, the other's product is at work.
template <class R, class First, class Second>
__device__ __forceinline__ void forward_segment(Thread &th, const ForwardWeights<R> &w,
                                                const Segment &segment, const ProductOrder &order,
                                                int input_depth, First &first, Second &second) {
    const uint32_t above_full = R::kLast ? 0 : address_in_block(th.full, 1);
    first.store_hidden(th, 0);
    second.store_hidden(th, 0);
    load_inputs<R>(th, 0, input_depth, first, second);
    first.input_product(w, input_depth);
#pragma unroll 1
    for (int t = 0; t < segment.count; ++t) {
        __syncthreads(); // h(t-1) of all warps is in its place
        first.load_previous(th, t);
        first.save(th, max(t - 1, 0), t > 0, above_full);
        first.recurrent_product(w);
        second.load_previous(th, t);
        second.save(th, max(t - 1, 0), t > 0, above_full);
        first.update_cells([&](int stage, float number) {
            second.product_beside(w, input_depth, stage, order, number);
        });
        first.offload_tiles(th, t, t);
        second.offload_tiles(th, t, t + R::kWarps / 2);
        if (t + 1 < segment.count) {
            first.store_hidden(th, t + 1);
            load_inputs<R>(th, t + 1, input_depth, first, second);
        }
        second.update_cells([&](int stage, float number) {
            first.input_product_beside(w, input_depth, stage, order, number);
        });
        if (t + 1 < segment.count) {
            second.store_hidden(th, t + 1);
        }
    }
    first.save(th, segment.count - 1, true, above_full);
    second.save(th, segment.count - 1, true, above_full);
}

// Feature f of a row, in the tile of x at `tile`.
template <class R>
__device__ __forceinline__ void store_input(uint32_t tile, int row, int f, int run, bool low_parts,
                                            float x) {
    using Op = typename R::Operand;
#pragma unroll
    for (int p = 0; p < R::kPlanes; ++p) {
        store_first(tile + R::input_place(row, f) + p * R::kInputBytes, Op::pack(x, 0.0f, p));
    }
    if (low_parts) {
        store_first(tile + R::input_place(row, run + f), Op::pack(x, 0.0f, 0));
        store_first(tile + R::input_place(row, 2 * run + f), Op::pack(x, 0.0f, 1));
    }
}

// x of the segment for the tile whose windows end at `ends`[8] (-1: no such row), to its place.
// `clears` what lies there: beyond its features x stays zero only in slots.
template <class R>
__device__ __forceinline__ void
load_segment_input(const Thread &th, const TilePlace &place, bool clears, const int *ends,
                   const Segment &segment, const float *features, int width, int time_steps) {
    constexpr int kInFlight = 4;
    const int count = segment.count * width, run = R::input_run(width);
    const float inv_width = 1.0f / (float)width;
    for (int row = th.warp(); row < kRows; row += R::kWarps) {
        const int end = ends[row];
        const float *source = features + ((int64_t)end + 1 - time_steps + segment.first) * width;
        if (clears) {
            for (int t = th.lane() >> 2; t < segment.count; t += 8) {
                store_shared16(place.input + t * place.stride +
                                   chunk_place<R::kTileRow>(row, th.lane() & 3),
                               make_uint4(0, 0, 0, 0));
            }
            __syncwarp();
        }
#pragma unroll 1
        for (int first = th.lane(); first < count; first += 32 * kInFlight) {
            float x[kInFlight];
#pragma unroll
            for (int i = 0; i < kInFlight; ++i) { // all are asked for before the first is used
                const int at = first + 32 * i;
                x[i] = end >= 0 && at < count ? __ldg(source + at) : 0.0f;
            }
#pragma unroll
            for (int i = 0; i < kInFlight; ++i) {
                const int at = first + 32 * i;
                const int t = (int)(((float)at + 0.5f) * inv_width), f = at - t * width;
                if (at < count) { // t = at / width
                    store_input<R>(place.input + t * place.stride, row, f, run,
                                   R::has_low_parts(width), x[i]);
                }
            }
        }
    }
}

} // namespace rp_lstm
