// How eager mode merges the 512 threads of one channel of PLANES: two butterflies for statistics,
// two trees of shuffles for gradients. Thread = lane + 32 * warp; 16 warps.
#pragma once

#include "bn_leaky_relu_arithmetic.cuh"

namespace rp_kernels {

constexpr int PLANE_THREADS = 512;
constexpr int PLANE_WARPS = PLANE_THREADS / 32;

// Threads along a plane; the others of the 512 take other images.
__host__ __device__ inline int threads_along_plane(int length) {
    int threads = 32;
    while (threads < length && threads < PLANE_THREADS) {
        threads *= 2;
    }
    return threads;
}

// Butterfly over a warp. Only lane 0 merges in eager mode's order; the others' results are unused.
__device__ __forceinline__ Partial merge_planes_warp(Partial partial) {
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        const Partial other = {__shfl_xor_sync(~0u, partial.count, offset),
                               __shfl_xor_sync(~0u, partial.first, offset),
                               __shfl_xor_sync(~0u, partial.second, offset)};
        partial = merge_moments<MergeKind::PLANES>(partial, other);
    }
    return partial;
}

// Sums over a warp, in lane 0. In 16-bit types the partner's sum is rounded to the type first.
template <typename scalar_t> __device__ __forceinline__ Partial add_planes_warp(Partial partial) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        const float first = __shfl_down_sync(~0u, partial.first, offset);
        const float second = __shfl_down_sync(~0u, partial.second, offset);
        partial.first = __fadd_rn(partial.first, rounded<scalar_t>(first));
        partial.second = __fadd_rn(partial.second, rounded<scalar_t>(second));
    }
    return partial;
}

// One more gradient. In 16-bit types the product is rounded to the type before it is added.
template <typename scalar_t>
__device__ __forceinline__ void add_planes_gradient(Partial &sums, float centered, float dy) {
    sums.first = __fadd_rn(sums.first, dy);
    if constexpr (Scalar<scalar_t>::NARROW) {
        sums.second = __fadd_rn(sums.second, rounded<scalar_t>(__fmul_rn(dy, centered)));
    } else {
        sums.second = __fmaf_rn(centered, dy, sums.second);
    }
}

} // namespace rp_kernels
