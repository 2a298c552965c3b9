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
#pragma unroll 1
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
#pragma unroll 1
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
    const uint32_t store0 = place / kGateRow * kGatePart +
                            chunk_place<kGateRow>(row0, place % kGateRow >> 4) + place % 16;
    const uint32_t fragment = chunk_place<kGateRow>(th.g(), th.q());
    constexpr int kGradientStride = SharedPlan<typename R::L>::kGradientStride;
    const uint32_t below =
        R::kSendsGradient ? address_in_block(th.input_gradient, 0) + th.id * 8 : 0;
    const uint32_t below_full = R::kSendsGradient ? address_in_block(th.full, 0) : 0;

    const SegmentKeepBits kept(keep, segment);
    // Coefficients of dh and dc in the gate gradients, made one time step ahead.
    float to_o[2], to_c[2], to_i[2], to_f[2], to_g[2], forget[2];
    typename Op::Gates gates;
    typename Op::Cells previous_cells;
    auto wait_for_slot = [&](int t) {
        if (kFetched) {
            barrier_wait(th.fetched + t / kChunk * 8, parity);
        }
    };
    auto load = [&](int t) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        gates.load(slot, th.id, R::kThreads);
        previous_cells.load(slot + R::kCell, th.id);
    };
    auto coefficients = [&](bool last_time_step) {
        float i[2], f[2], g[2], o[2];
        gates.get(i, f, g, o);
        const float2 cells = previous_cells.get();
        const float before[2] = {cells.x, cells.y};
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

    wait_for_slot(segment.count - 1);
    load(segment.count - 1);
    coefficients(top);
    if (segment.count > 1) {
        wait_for_slot(segment.count - 2);
        load(segment.count - 2);
    }
    __syncthreads(); // every thread has read the gates that d(gates) of two slots overwrite
    if (R::kReceivesGradient) {
        th.receive(segment.count - 1);
        add_gradient_from_above(segment.count - 1, gradient_from_above(segment.count - 1));
    }
    bool arrived = false; // the gradient that comes next from above, as known a time step ahead
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
            const uint32_t row = (slot + store0) ^ (e ? kOddRow<kGateRow> : 0);
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
            wait_for_slot(t - 2);
        }
        __syncthreads();                // d(gates) of all units are in the slot
        const int next = max(t - 1, 0); // at t = 0 it is received again, of no use and no harm
        constexpr int kPart = (kGroups < 8 ? kGroups / 2 : 4) / R::kPlanes;
        constexpr int kParts = kGroups / kPart;
        // Two parts of the k: one arrives while the other is multiplied.
        uint4 b[2][R::kPlanes][kPart];
        auto load_part = [&](int part) {
#pragma unroll
            for (int p = 0; p < R::kPlanes; ++p) {
#pragma unroll
                for (int j = 0; j < kPart; ++j) {
                    const int group = part * kPart + j; // of 2 in a row
                    b[part & 1][p][j] =
                        load_shared16(((slot + fragment) ^ (group & 1) << 6) +
                                      p * R::kGateGradientBytes + (group >> 1) * kGatePart);
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
        if (R::kReceivesGradient && !arrived) { // answered behind these loads: not behind all
            th.receive(next);
        }
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
        if (R::kReceivesGradient && t > 0) {
            dx = gradient_from_above(next);
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
        if (R::kReceivesGradient) {
            add_gradient_from_above(next, dx);
        }
        if (R::kSendsGradient) {
            send8(below + t * kGradientStride,
                  (chain[0][2] + chain[1][2]) + (chain[2][2] + chain[3][2]),
                  (chain[0][3] + chain[1][3]) + (chain[2][3] + chain[3][3]), below_full + 8 * t);
        }
        if (R::kReceivesGradient) { // the answer takes its time: nobody waits for it here
            arrived = th.has_arrived(max(t - 2, 0));
        }
    }
    if (R::kReceivesGradient) {
        th.finish_receiving();
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
    if (adds) {
        add(bias + th.id, sum);
    } else {
        __stcg(bias + th.id, sum);
    }
}

} // namespace rp_lstm
