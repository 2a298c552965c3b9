// Types of the matrix operands: how numbers become operands, the product D[16x8] += A[16xk] B[kx8]
// of two of them, the accuracy of the activations that goes with it, and how gates are kept.
//
//   Pair         two neighbouring operands: one register of 16-bit numbers, or two of 32-bit ones
//   Gates, Cells  i, f, g, o and c of a thread's two cells, for the backward pass
//   kPlanes      an operand is a sum of as many, each in a tile or in fragments of its own
//   pack, pack_hidden  two numbers, or two of h as a tile keeps them: their part in a plane, or
//                in plane 1 what those of plane 0 leave off
//   hidden_operand(chunk, s)  b0 and b1 of the s-th mma from 16 bytes of a tile of h
#pragma once

#include "kernels/lstm_train_ptx.cuh" // found by the path: a test has its own

namespace rp_lstm {

// ---- Activations. sigmoid_of_double(x) is sigmoid(2x): weights and biases of i, f, o are halved;
// `kept` is what Gates keep of it.
struct FastActivations { // relative error of tanh 5e-4
    static __device__ __forceinline__ float tanh(float x) { return fast_tanh(x); }
    static __device__ __forceinline__ float sigmoid_of_double(float x, float &kept) {
        kept = tanh(x);
        return fmaf(kept, 0.5f, 0.5f);
    }
};
struct ExactActivations { // a few units in the last place
    static __device__ __forceinline__ float tanh(float x) { return tanhf(x); }
    static __device__ __forceinline__ float sigmoid_of_double(float x, float &kept) {
        return kept = __fdividef(1.0f, 1.0f + __expf(-2.0f * x));
    }
};

// ---- Gates, of all `threads` in shared or device memory; a warp's accesses are contiguous.
// As fp16 the tanh of which i, f and o are made: fp16 of a sigmoid itself is 2 to 16 times less
// exact between 1/4 and 1, and that was more than half of the whole gradient's error.
struct Fp16Gates {
    uint4 pairs;
    __device__ __forceinline__ void set(const float (&i)[2], const float (&f)[2],
                                        const float (&g)[2], const float (&o)[2]) {
        pairs = make_uint4(pack_fp16(i[0], i[1]), pack_fp16(f[0], f[1]), pack_fp16(g[0], g[1]),
                           pack_fp16(o[0], o[1]));
    }
    __device__ __forceinline__ void get(float (&i)[2], float (&f)[2], float (&g)[2],
                                        float (&o)[2]) const {
        const float2 v[4] = {unpack_fp16(pairs.x), unpack_fp16(pairs.y), unpack_fp16(pairs.z),
                             unpack_fp16(pairs.w)};
        i[0] = fmaf(v[0].x, 0.5f, 0.5f), i[1] = fmaf(v[0].y, 0.5f, 0.5f);
        f[0] = fmaf(v[1].x, 0.5f, 0.5f), f[1] = fmaf(v[1].y, 0.5f, 0.5f);
        g[0] = v[2].x, g[1] = v[2].y;
        o[0] = fmaf(v[3].x, 0.5f, 0.5f), o[1] = fmaf(v[3].y, 0.5f, 0.5f);
    }
    __device__ __forceinline__ void store(uint32_t address, int thread, int) const {
        store_shared16(address + thread * 16, pairs);
    }
    __device__ __forceinline__ void store(void *place, int thread, int) const {
        __stcs((uint4 *)place + thread, pairs);
    }
    __device__ __forceinline__ void load(uint32_t address, int thread, int) {
        pairs = load_shared16(address + thread * 16);
    }
};
struct Fp32Gates {
    uint4 input_forget, cell_output;
    __device__ __forceinline__ void set(const float (&i)[2], const float (&f)[2],
                                        const float (&g)[2], const float (&o)[2]) {
        input_forget = make_uint4(__float_as_uint(i[0]), __float_as_uint(i[1]),
                                  __float_as_uint(f[0]), __float_as_uint(f[1]));
        cell_output = make_uint4(__float_as_uint(g[0]), __float_as_uint(g[1]),
                                 __float_as_uint(o[0]), __float_as_uint(o[1]));
    }
    __device__ __forceinline__ void get(float (&i)[2], float (&f)[2], float (&g)[2],
                                        float (&o)[2]) const {
        i[0] = __uint_as_float(input_forget.x), i[1] = __uint_as_float(input_forget.y);
        f[0] = __uint_as_float(input_forget.z), f[1] = __uint_as_float(input_forget.w);
        g[0] = __uint_as_float(cell_output.x), g[1] = __uint_as_float(cell_output.y);
        o[0] = __uint_as_float(cell_output.z), o[1] = __uint_as_float(cell_output.w);
    }
    __device__ __forceinline__ void store(uint32_t address, int thread, int threads) const {
        store_shared16(address + thread * 16, input_forget);
        store_shared16(address + (threads + thread) * 16, cell_output);
    }
    __device__ __forceinline__ void store(void *place, int thread, int threads) const {
        __stcs((uint4 *)place + thread, input_forget);
        __stcs((uint4 *)place + threads + thread, cell_output);
    }
    __device__ __forceinline__ void load(uint32_t address, int thread, int threads) {
        input_forget = load_shared16(address + thread * 16);
        cell_output = load_shared16(address + (threads + thread) * 16);
    }
};

// ---- c of a thread's two cells
struct Fp16Cells {
    uint32_t pair;
    __device__ __forceinline__ void set(float first, float second) {
        pair = pack_fp16(first, second);
    }
    __device__ __forceinline__ float2 get() const { return unpack_fp16(pair); }
    __device__ __forceinline__ void store(uint32_t address, int thread) const {
        store_shared4(address + thread * 4, pair);
    }
    __device__ __forceinline__ void store(void *place, int thread) const {
        __stcs((uint32_t *)place + thread, pair);
    }
    __device__ __forceinline__ void load(uint32_t address, int thread) {
        pair = load_shared4(address + thread * 4);
    }
};
struct Fp32Cells {
    float2 pair;
    __device__ __forceinline__ void set(float first, float second) {
        pair = make_float2(first, second);
    }
    __device__ __forceinline__ float2 get() const { return pair; }
    __device__ __forceinline__ void store(uint32_t address, int thread) const {
        store_shared_float2(address + thread * 8, pair.x, pair.y);
    }
    __device__ __forceinline__ void store(void *place, int thread) const {
        __stcs((float2 *)place + thread, pair);
    }
    __device__ __forceinline__ void load(uint32_t address, int thread) {
        pair = load_shared_float2(address + thread * 8);
    }
};

__device__ __forceinline__ uint2 half_of_chunk(uint4 chunk, int s) {
    return s ? make_uint2(chunk.z, chunk.w) : make_uint2(chunk.x, chunk.y);
}

// ---- Operands
template <class Op> struct Storage16 {
    static constexpr int kBytes = 2, kPlanes = 1;
    using Pair = uint32_t;
    using Gates = Fp16Gates;
    using Cells = Fp16Cells;
    static __device__ __forceinline__ Pair pack_hidden(float low, float high, int plane) {
        return Op::pack(low, high, plane);
    }
    static __device__ __forceinline__ uint2 hidden_operand(uint4 chunk, int s) {
        return half_of_chunk(chunk, s);
    }
};
struct Fp16 : FastActivations, Storage16<Fp16> {
    static constexpr bool kScaled = true; // gradients need a loss scale
    static constexpr float kFirstScale = 8.0f;
    static __device__ __forceinline__ Pair pack(float low, float high, int plane) {
        const uint32_t pair = pack_fp16(low, high);
        if (plane == 0) {
            return pair;
        }
        const float2 v = unpack_fp16(pair);
        return pack_fp16(low - v.x, high - v.y);
    }
    static __device__ __forceinline__ void mma(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
        mma_fp16(c, a, b0, b1);
    }
    template <int kCount>
    static __device__ __forceinline__ void wgmma(float (&d)[kCount], uint64_t a, uint64_t b) {
        wgmma_f16(d, a, b);
    }
};
struct Bf16 : FastActivations, Storage16<Bf16> {
    static constexpr bool kScaled = false; // float's range
    static constexpr float kFirstScale = 1.0f;
    static __device__ __forceinline__ Pair pack(float low, float high, int plane) {
        const uint32_t pair = pack_bf16(low, high);
        if (plane == 0) {
            return pair;
        }
        return pack_bf16(low - __uint_as_float(pair << 16),
                         high - __uint_as_float(pair & 0xffff0000u));
    }
    static __device__ __forceinline__ void mma(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
        mma_bf16(c, a, b0, b1);
    }
    template <int kCount>
    static __device__ __forceinline__ void wgmma(float (&d)[kCount], uint64_t a, uint64_t b) {
        wgmma_bf16(d, a, b);
    }
};

struct Tf32 : FastActivations {
    static constexpr int kBytes = 4, kPlanes = 1;
    static constexpr bool kScaled = false;
    static constexpr float kFirstScale = 1.0f;
    using Pair = uint2;
    using Gates = Fp16Gates;
    using Cells = Fp32Cells;
    // h as fp16, which has TF32's mantissa, for |h| < 1.
    static __device__ __forceinline__ uint32_t pack_hidden(float low, float high, int) {
        return pack_fp16(low, high);
    }
    // Two numbers of h.
    static __device__ __forceinline__ uint2 widen(uint32_t pair) {
        const float2 v = unpack_fp16(pair);
        return make_uint2(__float_as_uint(v.x), __float_as_uint(v.y));
    }
    static __device__ __forceinline__ uint2 hidden_operand(uint4 chunk, int s) {
        return widen(s == 0 ? chunk.x : s == 1 ? chunk.y : s == 2 ? chunk.z : chunk.w);
    }
    static __device__ __forceinline__ Pair pack(float low, float high, int plane) {
        const uint2 pair = make_uint2(round_tf32(low), round_tf32(high));
        if (plane == 0) {
            return pair;
        }
        return make_uint2(round_tf32(low - __uint_as_float(pair.x)),
                          round_tf32(high - __uint_as_float(pair.y)));
    }
    static __device__ __forceinline__ void mma(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
        mma_tf32(c, a, b0, b1);
    }
};
// v = high + low, two numbers of fp16 that hold 22 bits, each in a plane of its own: three products
// give that of two float32 but for 2^-21 of it, at half the cost of three TF32 products. Low parts
// end at 2^-25, fp16's smallest, so gradients have a scale that keeps theirs far above.
struct Fp32 : ExactActivations, Storage16<Fp32> {
    static constexpr int kPlanes = 2;
    static constexpr bool kScaled = true;
    static constexpr float kFirstScale = 64.0f;
    using Gates = Fp32Gates;
    using Cells = Fp32Cells;
    static __device__ __forceinline__ Pair pack(float low, float high, int plane) {
        return Fp16::pack(low, high, plane);
    }
    static __device__ __forceinline__ void mma(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
        mma_fp16(c, a, b0, b1);
    }
    template <int kCount>
    static __device__ __forceinline__ void wgmma(float (&d)[kCount], uint64_t a, uint64_t b) {
        wgmma_f16(d, a, b);
    }
};

} // namespace rp_lstm
