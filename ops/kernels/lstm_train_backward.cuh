// Backward through time of one layer over one segment of one tile, and its weight gradients.
//
//   dc(t) = dh(t) o (1 - tanh(c)^2) + dc(t+1) f(t+1)
//   d(i, f, g, o) = dc g i(1-i), dc c(t-1) f(1-f), dc i (1-g^2), dh tanh(c) o(1-o)
//   dh(t-1) = W_h^T d(gates) + what the layer above sends      dx(t) = W_x^T d(gates)
#pragma once

#include "lstm_train_forward.cuh"

namespace rp_lstm {

// A fragments [unit block of 8][k = 4 unit + gate]: rows 0-7 are this warp's 8 columns of W_h, rows
// 8-15 those of W_x, so one mma yields dh and dx of the thread's own cells. The first layer needs
// no dx: its rows 8-15 are zero and not stored.
template <class R> struct BackwardWeights {
    uint4 fragment[R::kBackwardGroups][R::kFirst ? 1 : 2];
};

template <class R>
__device__ __forceinline__ void load_backward_weights(BackwardWeights<R> &w, const Thread &th,
                                                      const uint32_t *packed) {
    constexpr int kCount = R::kBackwardGroups * (R::kFirst ? 1 : 2);
    const uint4 *source = (const uint4 *)(packed + (R::kFirst ? 0 : R::kPartWords)) +
                          th.warp() * kCount * 32 + th.lane();
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
        w.fragment[R::kFirst ? i : i >> 1][R::kFirst ? 0 : i & 1] = __ldcg(source + i * 32);
    }
}

// What a thread carries from one time step to the one before, over segments too.
struct BackwardState {
    float dh[2], dc[2];
    float cell[2]; // c of the time step to come
    float bias[4]; // sum of d(gates) of unit, float
};

template <class R>
__device__ __forceinline__ void backward_segment(Thread &th, const BackwardWeights<R> &w,
                                                 const Segment &segment, const KeepBits &keep,
                                                 bool top, BackwardState &state) {
    using Op = typename R::Operand;
    constexpr int kGroups = R::kBackwardGroups, kHalf = kGroups / 2;
    const int row0 = 2 * th.q(), in_half = th.unit() & 31; // tiles of 32 units: 8 rows of 256 bytes
    const uint32_t store0 = (th.unit() >> 5) * 2048 + row0 * 256 +
                            ((in_half >> 1 ^ gate_swizzle(row0)) << 4) + (in_half & 1) * 8;
    const uint32_t fragment = th.g() * 256 + ((th.q() ^ gate_swizzle(th.g())) << 4);
    using Below = Role<typename R::L, Op, true, false>;
    const uint32_t below =
        R::kSendsGradient ? address_in_block(th.input_gradient, 0) + th.id * 8 : 0;
    const uint32_t below_full = R::kSendsGradient ? address_in_block(th.full, 0) : 0;

    // Coefficients of dh and dc in the gate gradients, made one time step ahead.
    float to_o[2], to_c[2], to_i[2], to_f[2], to_g[2], forget[2];
    uint4 gates;
    float2 previous_cell;
    auto load = [&](int t) {
        const uint32_t slot = th.slots + t * R::kSlotBytes;
        gates = load_shared16(slot + th.id * 16);
        previous_cell = load_shared_float2(slot + R::kCell + th.id * 8);
    };
    auto coefficients = [&](bool last_time_step) {
        const float2 i2 = unpack_fp16(gates.x), f2 = unpack_fp16(gates.y);
        const float2 g2 = unpack_fp16(gates.z), o2 = unpack_fp16(gates.w);
        const float i[2] = {i2.x, i2.y}, f[2] = {f2.x, f2.y}, g[2] = {g2.x, g2.y};
        const float o[2] = {o2.x, o2.y}, before[2] = {previous_cell.x, previous_cell.y};
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            if (last_time_step) {
                state.cell[e] = fmaf(f[e], before[e], i[e] * g[e]);
            }
            const float tanh_c = tanh_fast(state.cell[e]);
            to_o[e] = tanh_c * fmaf(-o[e], o[e], o[e]);
            to_c[e] = o[e] * fmaf(-tanh_c, tanh_c, 1.0f);
            to_i[e] = g[e] * fmaf(-i[e], i[e], i[e]);
            to_f[e] = before[e] * fmaf(-f[e], f[e], f[e]);
            to_g[e] = i[e] * fmaf(-g[e], g[e], 1.0f);
            forget[e] = f[e];
            state.cell[e] = before[e];
        }
    };
    auto receive = [&](int t, float(&dx)[2]) {
        barrier_wait(th.full + 8 * t, th.full_phase >> t & 1);
        th.full_phase ^= 1u << t;
        const float2 v =
            load_shared_float2(th.input_gradient + t * R::kInputGradientBytes + th.id * 8);
        dx[0] = v.x * keep.factor(0, segment.first + t);
        dx[1] = v.y * keep.factor(1, segment.first + t);
    };

    load(segment.count - 1);
    coefficients(top);
    if (segment.count > 1) {
        load(segment.count - 2);
    }
    __syncthreads(); // every thread has read the gates that d(gates) of two slots overwrite
    if (R::kReceivesGradient) {
        float dx[2];
        receive(segment.count - 1, dx);
        state.dh[0] += dx[0];
        state.dh[1] += dx[1];
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
            store_shared8(e ? ((slot + store0) ^ R::kOddRow) + 256 : slot + store0,
                          Op::pack(d[e][0], d[e][1]), Op::pack(d[e][2], d[e][3]));
        }
        const bool product = R::kSendsGradient || segment.first + t > 0;
        if (!product) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                state.bias[k] += d[0][k] + d[1][k];
            }
            break;
        }
        __syncthreads(); // d(gates) of all units are in the slot
        uint4 b0[kHalf], b1[kHalf];
        auto load_half = [&](int part, uint4(&b)[kHalf]) {
#pragma unroll
            for (int j = 0; j < kHalf; ++j) {
                const int group = part * kHalf + j; // 4 groups of 32 k in a row of 256 bytes
                b[j] = load_shared16(((slot + fragment) ^ (group & 1) << 6) + (group >> 2) * 2048 +
                                     (group >> 1 & 1) * 128);
            }
        };
        float chain[4][4];
        auto multiply_half = [&](int part, const uint4(&b)[kHalf]) {
#pragma unroll
            for (int j = 0; j < kHalf; ++j) {
                const int group = part * kHalf + j;
                float(&c0)[4] = chain[2 * (j & 1)];
                float(&c1)[4] = chain[2 * (j & 1) + 1];
                if (R::kFirst) {
                    const uint4 a = w.fragment[group][0];
                    Op::mma(c0, make_uint4(a.x, 0, a.y, 0), b[j].x, b[j].y);
                    Op::mma(c1, make_uint4(a.z, 0, a.w, 0), b[j].z, b[j].w);
                } else {
                    Op::mma(c0, w.fragment[group][0], b[j].x, b[j].y);
                    Op::mma(c1, w.fragment[group][R::kFirst ? 0 : 1], b[j].z, b[j].w);
                }
            }
        };
        load_half(0, b0);
        load_half(1, b1);
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
        multiply_half(0, b0);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            state.bias[k] += d[0][k] + d[1][k];
        }
        multiply_half(1, b1);
        float dx[2] = {0.0f, 0.0f};
        if (R::kReceivesGradient && t > 0) {
            receive(t - 1, dx);
        }
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            state.dh[e] = dx[e] + (chain[0][e] + chain[1][e]) + (chain[2][e] + chain[3][e]);
        }
        if (R::kSendsGradient) {
            send8(below + t * Below::kInputGradientBytes,
                  (chain[0][2] + chain[1][2]) + (chain[2][2] + chain[3][2]),
                  (chain[0][3] + chain[1][3]) + (chain[2][3] + chain[3][3]), below_full + 8 * t);
        }
    }
}

// Sum of the thread's bias gradients over the 8 rows, to bias [4H] (gate-major) in device memory.
template <class R>
__device__ __forceinline__ void store_bias_gradient(const Thread &th, const BackwardState &state,
                                                    float *bias) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        float sum = state.bias[k];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (th.q() == 0) {
            __stcg(bias + k * R::kHidden + th.unit(), sum);
        }
    }
}

// d(W) [4H][columns] = sum over the segment's time steps and rows of d(gates)^T [x | h(t-1)], by
// mma with k = 2 time steps x 8 rows; to `partial` in fragment order. fp16: when a number in it is
// not finite, *overflow = stamp.
template <class R>
__device__ __forceinline__ void weight_gradient(Thread th, int count, int features,
                                                uint32_t *partial, unsigned *overflow,
                                                unsigned stamp) {
    using Op = typename R::Operand;
    th.id = computed_here(th.id);
    constexpr int kPairs = R::kHidden / (R::kFirst ? 32 : 16); // of 8-column blocks, of a warp
    const int row_group = th.warp() >> 1, side = th.warp() & 1;
    const int matrix = th.lane() >> 3, row = th.lane() & 7;
    // An upper layer's even warps take the input's columns, its odd ones h(t-1)'s.
    const int first_block = R::kFirst ? side * (R::kHidden / 16) : 0;
    const int inputs = R::kFirst ? input_blocks(features) : R::kHidden / 8;
    const bool has_input = R::kFirst && 2 * side < inputs;
    float sum[4][2 * kPairs][4], input_sum[R::kFirst ? 4 : 1][2][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < 2 * kPairs; ++n) {
            sum[m][n][0] = sum[m][n][1] = sum[m][n][2] = sum[m][n][3] = 0.0f;
        }
#pragma unroll
        for (int n = 0; R::kFirst && n < 2; ++n) {
            float(&z)[4] = input_sum[R::kFirst ? m : 0][n];
            z[0] = z[1] = z[2] = z[3] = 0.0f;
        }
    }
    // Bases of chunk 0 of this lane's row; the chunk's number is XORed in, as slots begin on 128
    // bytes. 64 gate rows are half of a 128-wide tile.
    const uint32_t gates = th.slots + (row_group >> 1) * 2048 + row * 256 + (row_group & 1) * 128 +
                           (((matrix & 1) ^ gate_swizzle(row)) << 4);
    const uint32_t tile = th.slots + (R::kFirst || side ? R::kPrevious : R::kInput) +
                          row * R::kTileRow +
                          (((first_block | matrix >> 1) ^ R::swizzle(row)) << 4);
    const uint32_t input = th.slots + R::kInput + row * 64 + ((2 * side + (matrix >> 1)) << 4);
    // One mma depth: time steps t and t + 1, or t alone and zeros.
    auto two_time_steps = [&](int t, auto alone) {
        constexpr bool kAlone = decltype(alone)::value;
        const uint32_t a_slot = (t + (kAlone ? 0 : matrix >> 1)) * R::kSlotBytes;
        const uint32_t b_slot = (t + (kAlone ? 0 : matrix & 1)) * R::kSlotBytes;
        uint32_t a[4][4], b[kPairs][4], x[4];
#pragma unroll
        for (int n = 0; n < kPairs; ++n) {
            load_matrix_transposed((tile + b_slot) ^ n << 5, b[n]);
        }
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            load_matrix_transposed((gates + a_slot) ^ m << 5, a[m]);
        }
        if (R::kFirst && has_input) {
            load_matrix_transposed(input + b_slot, x);
        }
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            const uint4 fragment =
                make_uint4(a[m][0], a[m][1], kAlone ? 0 : a[m][2], kAlone ? 0 : a[m][3]);
#pragma unroll
            for (int n = 0; n < 2 * kPairs; ++n) {
                Op::mma(sum[m][n], fragment, b[n >> 1][2 * (n & 1)], b[n >> 1][2 * (n & 1) + 1]);
            }
            if (R::kFirst && has_input) {
                Op::mma(input_sum[R::kFirst ? m : 0][0], fragment, x[0], x[1]);
                Op::mma(input_sum[R::kFirst ? m : 0][1], fragment, x[2], x[3]);
            }
        }
    };
#pragma unroll 2
    for (int t = 0; t + 1 < count; t += 2) {
        two_time_steps(t, std::false_type());
    }
    if (count & 1) {
        two_time_steps(count - 1, std::true_type());
    }

    // Block c of 8 columns: [row group][16 rows][lane][2]. Layer 0: x, h; then layer 1: input, h.
    const int below = R::kFirst ? 0 : input_blocks(features) + R::kHidden / 8;
    const int block = below + (R::kFirst ? inputs + first_block : side * inputs);
    __half2 finite = __float2half2_rn(0.0f); // 0 * v is NaN when v is not finite
    auto store = [&](int column_block, int m, const float(&v)[4]) {
        const uint2 packed = make_uint2(Op::pack(v[0], v[1]), Op::pack(v[2], v[3]));
        if (Op::kScaled) {
            const __half2 zero = __float2half2_rn(0.0f);
            finite = __hfma2(*reinterpret_cast<const __half2 *>(&packed.x), zero, finite);
            finite = __hfma2(*reinterpret_cast<const __half2 *>(&packed.y), zero, finite);
        }
        __stcg((uint2 *)partial + ((column_block * R::kRowGroups + row_group) * 4 + m) * 32 +
                   th.lane(),
               packed);
    };
#pragma unroll
    for (int n = 0; n < 2 * kPairs; ++n) {
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            store(block + n, m, sum[m][n]);
        }
    }
    if (R::kFirst) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            if (2 * side + n < inputs) {
#pragma unroll
                for (int m = 0; m < 4; ++m) {
                    store(2 * side + n, m, input_sum[R::kFirst ? m : 0][n]);
                }
            }
        }
    }
    if (!(__low2float(finite) == 0.0f && __high2float(finite) == 0.0f)) {
        __stcg(overflow, stamp);
    }
}

} // namespace rp_lstm
