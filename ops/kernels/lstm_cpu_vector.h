// The vector layer of the CPU kernels: one source for AVX-512, AVX2 and any other CPU.
//
// Policy: included by files that are compiled once per instruction set. Everything is in an
// unnamed namespace and nothing of the standard library is instantiated, so that no function
// compiled for a newer CPU can be linked in the place of one for an older.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/lstm_cpu_kernels.h"
#include "kernels/random.h"

#define RP_INLINE inline __attribute__((always_inline))
// GCC keeps an array of accumulators in registers only when every loop over it is unrolled.
#define RP_UNROLL _Pragma("GCC unroll 32")

namespace rp {
namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float vec __attribute__((vector_size(lanes * 4)));
typedef int32_t ivec __attribute__((vector_size(lanes * 4)));
typedef uint32_t uvec __attribute__((vector_size(lanes * 4)));
// As they lie in arrays. Apart from the types above, because clang forgets the alignment of 4 in an
// array of such vectors and then stores with instructions that need 64.
typedef float vec_in_memory __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef int32_t ivec_in_memory __attribute__((vector_size(lanes * 4), aligned(4), may_alias));

RP_INLINE vec load(const float *from) {
    return *reinterpret_cast<const vec_in_memory *>(from);
}
RP_INLINE ivec load(const int32_t *from) {
    return *reinterpret_cast<const ivec_in_memory *>(from);
}
RP_INLINE void store(float *to, vec value) {
    *reinterpret_cast<vec_in_memory *>(to) = value;
}
RP_INLINE void store(int32_t *to, ivec value) {
    *reinterpret_cast<ivec_in_memory *>(to) = value;
}

RP_INLINE vec broadcast(float value) {
#if defined(__AVX512F__)
    return (vec)_mm512_set1_ps(value);
#elif defined(__AVX2__)
    return (vec)_mm256_set1_ps(value);
#else
    return vec{value, value, value, value};
#endif
}

// A load that stays in its register: without it GCC folds the load into each multiply-add that
// uses it, and the loop is bound by loads.
RP_INLINE vec load_once(const float *from) {
    vec value = load(from);
#if defined(__AVX2__)
    asm("" : "+v"(value));
#endif
    return value;
}

inline void fill_zero(float *to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        to[i] = 0.0f;
    }
}

// Written so that a NaN in `value` stays a NaN.
RP_INLINE vec at_most(vec value, float limit) {
#if defined(__AVX512F__)
    return (vec)_mm512_min_ps(_mm512_set1_ps(limit), (__m512)value);
#elif defined(__AVX2__)
    return (vec)_mm256_min_ps(_mm256_set1_ps(limit), (__m256)value);
#else
    return value > limit ? broadcast(limit) : value;
#endif
}

RP_INLINE vec at_least(vec value, float limit) {
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps(_mm512_set1_ps(limit), (__m512)value);
#elif defined(__AVX2__)
    return (vec)_mm256_max_ps(_mm256_set1_ps(limit), (__m256)value);
#else
    return value < limit ? broadcast(limit) : value;
#endif
}

RP_INLINE vec square_root(vec value) {
#if defined(__AVX512F__)
    return (vec)_mm512_sqrt_ps((__m512)value);
#elif defined(__AVX2__)
    return (vec)_mm256_sqrt_ps((__m256)value);
#else
    for (int i = 0; i < lanes; ++i) {
        value[i] = __builtin_sqrtf(value[i]);
    }
    return value;
#endif
}

// The lanes in a fixed order, by halves.
RP_INLINE float sum_of_lanes(vec value) {
    float part[lanes];
    store(part, value);
    RP_UNROLL
    for (int width = lanes / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; ++i) {
            part[i] += part[i + width];
        }
    }
    return part[0];
}

// Lane i counts when first + i < count; the others become 0.
RP_INLINE vec keep_below(vec value, int64_t first, int64_t count) {
    if (first + lanes <= count) {
        return value;
    }
    for (int i = 0; i < lanes; ++i) {
        value[i] = first + i < count ? value[i] : 0.0f;
    }
    return value;
}

// ---- sigmoid and tanh ---------------------------------------------------------------------------
// 2^y = 2^n 2^r with n whole and |r| <= 1/2; 2^r = 1 + r Q(r). Q is the Chebyshev fit of
// (2^r - 1) / r of degree 5: 9e-9 relative before rounding.
RP_INLINE vec power_of_two_quotient(vec r) {
    vec q = broadcast(0x1.444004p-13f);
    q = q * r + 0x1.5f0896p-10f;
    q = q * r + 0x1.3b2a1cp-7f;
    q = q * r + 0x1.c6af6cp-5f;
    q = q * r + 0x1.ebfbe0p-3f;
    return q * r + 0x1.62e430p-1f;
}

constexpr float log2_e = 1.44269504088896341f;
constexpr float log2_e_rest = 1.92596299e-8f;       // log2(e) less its float
constexpr float whole_number_shifter = 12582912.0f; // 1.5 * 2^23: adding it rounds to whole

// 1 / (1 + e^-x); beyond +-87 float32 has no more to tell.
RP_INLINE vec sigmoid(vec x) {
    x = at_most(at_least(x, -87.0f), 87.0f);
    const vec shifted = x * -log2_e + whole_number_shifter;
    const vec n = shifted - whole_number_shifter;
    const vec r = x * -log2_e_rest + (x * -log2_e - n);
    const vec power = r * power_of_two_quotient(r) + 1.0f;
    const vec e = (vec)((ivec)power + ((ivec)shifted << 23));
    return 1.0f / (e + 1.0f);
}

// With m = e^(-2|x|) - 1 computed without cancellation, tanh|x| = -m / (m + 2): relative accuracy
// near 0 as well.
RP_INLINE vec hyperbolic_tangent(vec x) {
    const ivec sign = (ivec)x & INT32_MIN;
    const vec magnitude = at_most((vec)((ivec)x & INT32_MAX), 20.0f);
    const vec shifted = magnitude * (-2 * log2_e) + whole_number_shifter;
    const vec n = shifted - whole_number_shifter;
    const vec r = magnitude * (-2 * log2_e_rest) + (magnitude * (-2 * log2_e) - n);
    const vec scale = (vec)((ivec)broadcast(1.0f) + ((ivec)shifted << 23));
    const vec m = scale * (r * power_of_two_quotient(r)) + (scale - 1.0f);
    return (vec)((ivec)(-m / (m + 2.0f)) ^ sign);
}

RP_INLINE vec leaky_relu(vec x, float negative_slope) {
    return x > 0.0f ? x : x * negative_slope;
}

// ---- dropout ------------------------------------------------------------------------------------
RP_INLINE void multiply_wide(uvec x, uint32_t factor, uvec &high, uvec &low) {
#if defined(__AVX512F__)
    const __m512i m = _mm512_set1_epi64(factor);
    const __m512i even = _mm512_mul_epu32((__m512i)x, m);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)x, 32), m);
    high = (uvec)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    low = (uvec)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#elif defined(__AVX2__)
    const __m256i m = _mm256_set1_epi64x(factor);
    const __m256i even = _mm256_mul_epu32((__m256i)x, m);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)x, 32), m);
    high = (uvec)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    low = (uvec)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    for (int i = 0; i < lanes; ++i) {
        const uint64_t product = static_cast<uint64_t>(x[i]) * factor;
        high[i] = static_cast<uint32_t>(product >> 32);
        low[i] = static_cast<uint32_t>(product);
    }
#endif
}

// rp_dropout_keep_bits(rp_dropout_block(...)) of random.h for rows first_row, first_row + 1, ...:
// bit j of a lane is 1 when time step 8 * time_block + j of that row is kept.
RP_INLINE ivec dropout_keep_bits(const LstmCpuDropout &dropout, int64_t first_row, uint32_t layer,
                                 uint32_t unit, uint32_t time_block) {
    uvec c0;
    for (int i = 0; i < lanes; ++i) {
        c0[i] = static_cast<uint32_t>(first_row + i);
    }
    const auto step = static_cast<uint64_t>(dropout.step);
    uvec c1 = uvec{} + (unit | time_block << 16 | layer << 24);
    uvec c2 = uvec{} + static_cast<uint32_t>(step);
    uvec c3 = uvec{} + static_cast<uint32_t>(step >> 32);
    uint32_t k0 = static_cast<uint32_t>(dropout.seed) ^ RP_RANDOM_DROPOUT;
    uint32_t k1 = static_cast<uint32_t>(dropout.seed >> 32);
    RP_UNROLL
    for (int round = 0; round < 10; ++round) {
        uvec high0, low0, high2, low2;
        multiply_wide(c0, 0xD2511F53u, high0, low0);
        multiply_wide(c2, 0xCD9E8D57u, high2, low2);
        c0 = high2 ^ c1 ^ k0;
        c1 = low2;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    const uvec word[4] = {c0, c1, c2, c3};
    ivec keep = {};
    RP_UNROLL
    for (int j = 0; j < 8; ++j) {
        const ivec bits = (ivec)(word[j / 2] >> (j % 2 * 16) & 0xffffu);
        keep |= (bits >= static_cast<int32_t>(dropout.threshold)) & (1 << j);
    }
    return keep;
}

// ---- transpose ----------------------------------------------------------------------------------
// to [lanes][..] = transpose of from [lanes][..]; the strides are between rows.
RP_INLINE void transpose_block(const float *from, int64_t from_stride, float *to,
                               int64_t to_stride) {
#if defined(__AVX512F__)
    // 2x2, then 4x4 inside each 128-bit part, then the parts.
    __m512 a[16], b[16];
    RP_UNROLL
    for (int i = 0; i < 16; ++i) {
        a[i] = _mm512_loadu_ps(from + i * from_stride);
    }
    RP_UNROLL
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    RP_UNROLL
    for (int i = 0; i < 16; i += 4) {
        for (int half = 0; half < 2; ++half) {
            const __m512d low = (__m512d)b[i + half], high = (__m512d)b[i + half + 2];
            a[i + 2 * half] = (__m512)_mm512_unpacklo_pd(low, high);
            a[i + 2 * half + 1] = (__m512)_mm512_unpackhi_pd(low, high);
        }
    }
    RP_UNROLL
    for (int i = 0; i < 4; ++i) {
        const __m512 even_low = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
        const __m512 odd_low = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
        const __m512 even_high = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        const __m512 odd_high = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
        _mm512_storeu_ps(to + i * to_stride, _mm512_shuffle_f32x4(even_low, even_high, 0x88));
        _mm512_storeu_ps(to + (4 + i) * to_stride, _mm512_shuffle_f32x4(odd_low, odd_high, 0x88));
        _mm512_storeu_ps(to + (8 + i) * to_stride, _mm512_shuffle_f32x4(even_low, even_high, 0xdd));
        _mm512_storeu_ps(to + (12 + i) * to_stride, _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd));
    }
#elif defined(__AVX2__)
    __m256 a[8], b[8];
    RP_UNROLL
    for (int i = 0; i < 8; ++i) {
        a[i] = _mm256_loadu_ps(from + i * from_stride);
    }
    RP_UNROLL
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    RP_UNROLL
    for (int i = 0; i < 8; i += 4) {
        for (int half = 0; half < 2; ++half) {
            const __m256d low = (__m256d)b[i + half], high = (__m256d)b[i + half + 2];
            a[i + 2 * half] = (__m256)_mm256_unpacklo_pd(low, high);
            a[i + 2 * half + 1] = (__m256)_mm256_unpackhi_pd(low, high);
        }
    }
    RP_UNROLL
    for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(a[i], a[4 + i], 0x20));
        _mm256_storeu_ps(to + (4 + i) * to_stride, _mm256_permute2f128_ps(a[i], a[4 + i], 0x31));
    }
#else
    for (int i = 0; i < lanes; ++i) {
        for (int j = 0; j < lanes; ++j) {
            to[j * to_stride + i] = from[i * from_stride + j];
        }
    }
#endif
}

} // namespace
} // namespace rp
