// The roundings of eager mode's BatchNorm and LeakyReLU, one function a formula.
//
// Policy: every product, sum and fused multiply-add is an intrinsic with its rounding in its name,
// so that no compiler can contract or reorder it. rn(..) in a comment is one float32 rounding.
#pragma once

#include "bn_leaky_relu.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace rp_kernels {

// ---- Storage types ------------------------------------------------------------------------------

// Values of 16 bytes travel together: PACK of them.
template <typename scalar_t> struct Scalar;

template <> struct Scalar<float> {
    static constexpr DataType TYPE = DataType::FLOAT32;
    static constexpr int PACK = 4;
    static constexpr bool NARROW = false;
    static __device__ __forceinline__ float widen(float value) { return value; }
    static __device__ __forceinline__ float narrow(float value) { return value; }
    static __device__ __forceinline__ void unpack(const uint4 &pack, float (&value)[PACK]) {
        value[0] = __uint_as_float(pack.x);
        value[1] = __uint_as_float(pack.y);
        value[2] = __uint_as_float(pack.z);
        value[3] = __uint_as_float(pack.w);
    }
    static __device__ __forceinline__ uint4 pack(const float (&value)[PACK]) {
        return make_uint4(__float_as_uint(value[0]), __float_as_uint(value[1]),
                          __float_as_uint(value[2]), __float_as_uint(value[3]));
    }
    static __device__ __forceinline__ bool is_positive(float y) { return y > 0.0f; }
};

template <> struct Scalar<__half> {
    static constexpr DataType TYPE = DataType::FLOAT16;
    static constexpr int PACK = 8;
    static constexpr bool NARROW = true;
    static __device__ __forceinline__ float widen(__half value) { return __half2float(value); }
    static __device__ __forceinline__ __half narrow(float value) { return __float2half_rn(value); }
    static __device__ __forceinline__ void unpack(const uint4 &pack, float (&value)[PACK]) {
        const uint32_t word[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float2 pair = __half22float2(*reinterpret_cast<const __half2 *>(&word[i]));
            value[2 * i] = pair.x;
            value[2 * i + 1] = pair.y;
        }
    }
    static __device__ __forceinline__ uint4 pack(const float (&value)[PACK]) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const __half2 pair = __floats2half2_rn(value[2 * i], value[2 * i + 1]);
            word[i] = *reinterpret_cast<const uint32_t *>(&pair);
        }
        return make_uint4(word[0], word[1], word[2], word[3]);
    }
    // y rounded to storage is positive: half of the smallest denormal is a tie, and goes to zero.
    static __device__ __forceinline__ bool is_positive(float y) {
        return y > 0x1p-25f;
    }
};

template <> struct Scalar<__nv_bfloat16> {
    static constexpr DataType TYPE = DataType::BFLOAT16;
    static constexpr int PACK = 8;
    static constexpr bool NARROW = true;
    static __device__ __forceinline__ float widen(__nv_bfloat16 value) {
        return __bfloat162float(value);
    }
    static __device__ __forceinline__ __nv_bfloat16 narrow(float value) {
        return __float2bfloat16_rn(value);
    }
    static __device__ __forceinline__ void unpack(const uint4 &pack, float (&value)[PACK]) {
        const uint32_t word[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            value[2 * i] = __uint_as_float(word[i] << 16);
            value[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
        }
    }
    static __device__ __forceinline__ uint4 pack(const float (&value)[PACK]) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(value[2 * i], value[2 * i + 1]);
            word[i] = *reinterpret_cast<const uint32_t *>(&pair);
        }
        return make_uint4(word[0], word[1], word[2], word[3]);
    }
    static __device__ __forceinline__ bool is_positive(float y) {
        return y > 0x1p-134f;
    }
};

// rn(value) to the storage type, as a float again.
template <typename scalar_t> __device__ __forceinline__ float rounded(float value) {
    if constexpr (Scalar<scalar_t>::NARROW) {
        return Scalar<scalar_t>::widen(Scalar<scalar_t>::narrow(value));
    } else {
        return value;
    }
}

// Element `index` of an array whose type is known at run time only: parameters, one a channel.
__device__ __forceinline__ float load_parameter(const void *array, DataType type, int index) {
    switch (type) {
    case DataType::FLOAT16:
        return __half2float(static_cast<const __half *>(array)[index]);
    case DataType::BFLOAT16:
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(array)[index]);
    default:
        return static_cast<const float *>(array)[index];
    }
}

__device__ __forceinline__ float load_parameter_or(float missing, const void *array, DataType type,
                                                   int index) {
    return array ? load_parameter(array, type, index) : missing;
}

__device__ __forceinline__ void store_parameter(void *array, DataType type, int index,
                                                float value) {
    switch (type) {
    case DataType::FLOAT16:
        static_cast<__half *>(array)[index] = __float2half_rn(value);
        break;
    case DataType::BFLOAT16:
        static_cast<__nv_bfloat16 *>(array)[index] = __float2bfloat16_rn(value);
        break;
    default:
        static_cast<float *>(array)[index] = value;
    }
}

// ---- Normalisation and activation ---------------------------------------------------------------

struct Channel {
    float mean, invstd, weight, bias;
};

// y = fma(invstd, rn((x - mean) * w), b); without w and b the one and the zero are multiplied and
// added all the same.
__device__ __forceinline__ float normalize(float centered, const Channel &channel) {
    return __fmaf_rn(channel.invstd, __fmul_rn(centered, channel.weight), channel.bias);
}

__device__ __forceinline__ float center(float x, const Channel &channel) {
    return __fadd_rn(x, -channel.mean);
}

// y is rounded to the storage type before the LeakyReLU sees it. NaN takes the product.
template <typename scalar_t>
__device__ __forceinline__ float forward_value(float x, const Channel &channel, float slope) {
    const float y = rounded<scalar_t>(normalize(center(x, channel), channel));
    return y > 0.0f ? y : __fmul_rn(y, slope);
}

// The gradient that reaches the BatchNorm, rounded to the storage type.
template <typename scalar_t>
__device__ __forceinline__ float gradient_of_y(float centered, float grad_output,
                                               const Channel &channel, float slope) {
    const float y = normalize(centered, channel);
    return Scalar<scalar_t>::is_positive(y) ? grad_output
                                            : rounded<scalar_t>(__fmul_rn(grad_output, slope));
}

// invstd in training and in the forward of evaluation; CUDA's rsqrtf without flush to zero.
__device__ __forceinline__ float inverse_deviation(float variance, float eps) {
    return rsqrtf(__fadd_rn(variance, eps));
}

// ---- Welford's mean and sum of squared deviations ----------------------------------------------

// rn(1 / count) for count >= 1: the fast path of __frcp_rn, without the branch to the slow one that
// only denormal and huge arguments need, and that keeps the compiler from overlapping iterations.
__device__ __forceinline__ float reciprocal_of(int count) {
    const float n = static_cast<float>(count);
    float guess;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(guess) : "f"(n));
    return __fmaf_rn(guess, -__fmaf_rn(n, guess, -1.0f), guess);
}

// A part of the reduction of one channel: (n, mean, m2) of the values, or (-, sum of dy,
// sum of dy * (x - mean)) of the gradients.
struct Partial {
    int count;
    float first, second;
};

// One more value of a ROWS chain; reciprocal = rn(1 / count), the new value included.
__device__ __forceinline__ void welford_rows(float &mean, float &m2, float x, float reciprocal) {
    const float before = __fadd_rn(x, -mean);
    mean = __fmaf_rn(before, reciprocal, mean);
    m2 = __fadd_rn(m2, __fmul_rn(before, __fadd_rn(x, -mean)));
}

// A chain that ends one row early is not left alone: eager mode adds a zero with weight zero, which
// makes a huge mean's m2 NaN.
__device__ __forceinline__ void welford_rows_past_the_end(float &mean, float &m2) {
    const float before = __fadd_rn(0.0f, -mean);
    mean = __fmaf_rn(before, 0.0f, mean);
    m2 = __fmaf_rn(__fmul_rn(before, __fadd_rn(0.0f, -mean)), 0.0f, m2);
}

// One more value of a PLANES chain: a true division, and a fused m2.
__device__ __forceinline__ void welford_planes(float &mean, float &m2, float x, float count) {
    const float before = __fadd_rn(x, -mean);
    mean = __fadd_rn(mean, __fdiv_rn(before, count));
    m2 = __fmaf_rn(before, __fadd_rn(x, -mean), m2);
}

enum class MergeKind {
    SLOTS,  // within a ROWS thread: the second mean is the fused one
    BLOCKS, // trees and grids of ROWS: the first mean is the fused one
    PLANES  // butterflies of PLANES: as BLOCKS, with m2's counts in the other order
};

template <MergeKind KIND>
__device__ __forceinline__ Partial merge_moments(const Partial &a, const Partial &b) {
    const float count_a = static_cast<float>(a.count);
    const float count_b = static_cast<float>(b.count);
    const int count = a.count + b.count;
    const float factor = reciprocal_of(max(count, 1));
    const float delta = __fadd_rn(a.first, -b.first);
    const float sum = KIND == MergeKind::SLOTS
                          ? __fmaf_rn(b.first, count_b, __fmul_rn(a.first, count_a))
                          : __fmaf_rn(a.first, count_a, __fmul_rn(b.first, count_b));
    const float square = __fmul_rn(delta, delta);
    const float spread = KIND == MergeKind::PLANES ? __fmul_rn(__fmul_rn(square, count_a), count_b)
                                                   : __fmul_rn(__fmul_rn(square, count_b), count_a);
    return {count, __fmul_rn(sum, factor),
            __fadd_rn(a.second, __fmaf_rn(spread, factor, b.second))};
}

// How partial results of a ROWS reduction combine.
struct StatisticsMerge {
    static __device__ __forceinline__ Partial slots(const Partial &a, const Partial &b) {
        return merge_moments<MergeKind::SLOTS>(a, b);
    }
    static __device__ __forceinline__ Partial blocks(const Partial &a, const Partial &b) {
        return merge_moments<MergeKind::BLOCKS>(a, b);
    }
};

struct GradientMerge {
    static __device__ __forceinline__ Partial slots(const Partial &a, const Partial &b) {
        return {0, __fadd_rn(a.first, b.first), __fadd_rn(a.second, b.second)};
    }
    static __device__ __forceinline__ Partial blocks(const Partial &a, const Partial &b) {
        return slots(a, b);
    }
};

// ---- What a finished reduction becomes ----------------------------------------------------------

// running = fma(new, momentum, rn((1 - momentum) * running)); the variance is the unbiased one.
__device__ __forceinline__ void update_running(void *running, DataType type, int channel,
                                               float before, float value, float momentum) {
    const float keep = __fmul_rn(__fadd_rn(1.0f, -momentum), before);
    store_parameter(running, type, channel, __fmaf_rn(value, momentum, keep));
}

// Coefficients of dx in the ROWS formula dx = rn(scale * fma(-slope, x - mean, fma(-sum, 1/R,
// dy))).
struct RowsGradient {
    float sum, slope, scale, reciprocal;
};

__device__ __forceinline__ RowsGradient rows_gradient(float sum, float dot, float weight,
                                                      float invstd, float reciprocal) {
    return {sum, __fmul_rn(__fmul_rn(dot, __fmul_rn(invstd, invstd)), reciprocal),
            __fmul_rn(weight, invstd), reciprocal};
}

__device__ __forceinline__ float grad_input_rows(float centered, float dy, const RowsGradient &g) {
    return __fmul_rn(__fmaf_rn(-g.slope, centered, __fmaf_rn(-g.sum, g.reciprocal, dy)), g.scale);
}

// Coefficients of dx in the PLANES formula dx = rn(scale * rn(fma(-slope, x - mean, dy) -
// mean_dy)).
struct PlanesGradient {
    float mean_dy, slope, scale;
};

__device__ __forceinline__ PlanesGradient planes_gradient(float sum, float dot, float weight,
                                                          float invstd, float reciprocal) {
    return {__fmul_rn(sum, reciprocal),
            __fmul_rn(__fmul_rn(__fmul_rn(dot, reciprocal), invstd), invstd),
            __fmul_rn(invstd, weight)};
}

__device__ __forceinline__ float grad_input_planes(float centered, float dy,
                                                   const PlanesGradient &g) {
    return __fmul_rn(__fadd_rn(__fmaf_rn(-g.slope, centered, dy), -g.mean_dy), g.scale);
}

} // namespace rp_kernels
