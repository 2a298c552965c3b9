// Training forward over PLANES in one launch, a cluster a channel.
//
// Policy: eager mode divides by the count at every value. Here d / n is a product with the
// reciprocal in two floats, exact to the last bit for n < 2^21 while |d| is 0 or within
// [2^-60, 2^100); a thread that meets another d starts its chain again with true divisions.
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_planes_ring.cuh"

#include <cooperative_groups.h>

#include <utility>

namespace rp_kernels {
namespace {

constexpr int CHAIN_UNROLL = 8;
constexpr int REREAD_UNROLL = 8;

// 1 / n = high + low, n = index + 1.
struct alignas(8) Reciprocal {
    float high, low;
};

// One virtual thread of eager mode.
struct Chain {
    float mean = 0.0f, m2 = 0.0f;
    uint32_t smallest = ~0u; // of |d|'s bits, doubled, less one: zero wraps to the largest
    uint32_t largest = 0;

    __device__ __forceinline__ void add(float x, const Reciprocal &reciprocal) {
        const float before = __fadd_rn(x, -mean);
        const uint32_t magnitude = __float_as_uint(before) << 1;
        smallest = min(smallest, magnitude - 1u);
        largest = max(largest, magnitude);
        const float quotient =
            __fmaf_rn(before, reciprocal.high, __fmul_rn(before, reciprocal.low));
        mean = __fadd_rn(mean, quotient);
        m2 = __fmaf_rn(before, __fadd_rn(x, -mean), m2);
    }

    __device__ bool is_exact() const {
        constexpr uint32_t TINY = 0x21800000u << 1;      // 2^-60
        constexpr uint32_t HUGE_BITS = 0x71800000u << 1; // 2^100
        return smallest >= TINY - 1u && largest < HUGE_BITS;
    }
};

template <typename scalar_t>
__device__ __noinline__ Partial divided_chain(const scalar_t *channel,
                                              const BnLeakyReluShape &shape, int first) {
    Partial chain = {};
    for (int image = 0; image < shape.images; ++image) {
        const scalar_t *plane =
            channel + static_cast<int64_t>(image) * shape.channels * shape.length;
        for (int l = first; l < shape.length; l += PLANE_THREADS) {
            chain.count += 1;
            welford_planes(chain.first, chain.second, Scalar<scalar_t>::widen(plane[l]),
                           static_cast<float>(chain.count));
        }
    }
    return chain;
}

// One channel by the chain warps: the mean and m2 of this thread.
template <typename scalar_t>
__device__ __forceinline__ Partial reduce(PlanesRing<scalar_t, 1> &ring,
                                          const BnLeakyReluShape &shape, const scalar_t *channel,
                                          int first, const Reciprocal *reciprocal) {
    Chain chain;
    int values_before = 0;
    ring.consume([&](const scalar_t *values, int count) {
        int k = 0;
        for (; k + CHAIN_UNROLL <= count; k += CHAIN_UNROLL) {
            scalar_t value[CHAIN_UNROLL];
            Reciprocal factor[CHAIN_UNROLL];
#pragma unroll
            for (int u = 0; u < CHAIN_UNROLL; ++u) {
                value[u] = values[(k + u) * WIDTH];
                factor[u] = reciprocal[k + u];
            }
#pragma unroll
            for (int u = 0; u < CHAIN_UNROLL; ++u) {
                chain.add(Scalar<scalar_t>::widen(value[u]), factor[u]);
            }
        }
        for (; k < count; ++k) {
            chain.add(Scalar<scalar_t>::widen(values[k * WIDTH]), reciprocal[k]);
        }
        reciprocal += count;
        values_before += count;
    });
    Partial partial = {values_before, chain.mean, chain.m2};
    if (!chain.is_exact()) {
        partial = divided_chain(channel, shape, first);
    }
    __syncwarp();
    return partial;
}

// The moments of eager mode's 16 warps, of which lane k has warp k's.
__device__ __forceinline__ float2 merge_warps(float2 moments, const BnLeakyReluShape &shape) {
    const int lane = threadIdx.x % 32;
    const int last = min(max(shape.length % PLANE_THREADS - lane * 32, 0), 32);
    const int count = shape.images * (shape.length / PLANE_THREADS * 32 + last);
    return first_lane(
        merge_planes_warp({lane < PLANE_WARPS ? count : 0, moments.x, moments.y}));
}

template <typename scalar_t>
__global__ void __launch_bounds__(RING_THREADS, 1)
    planes_forward_kernel(const BnLeakyReluForward p, const RingShape shape, float bessel) {
    extern __shared__ uint4 images[]; // the ring, then the reciprocals
    __shared__ RingMemory memory;
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    const int part = cluster.block_rank();
    const int warp = threadIdx.x / 32;
    const int length = p.shape.length;
    assume_parameter_type<scalar_t>(p);
    PlanesRing<scalar_t, 1> ring(p.shape, shape, images, &memory, part);
    auto *reciprocals = reinterpret_cast<Reciprocal *>(images + shape.slots * shape.slot_packs);
    const int longest = p.shape.images * ((length + PLANE_THREADS - 1) / PLANE_THREADS);
    for (int i = threadIdx.x; i < longest; i += RING_THREADS) {
        const float high = reciprocal_of(i + 1);
        reciprocals[i] = {high, __fmul_rn(__fmaf_rn(-static_cast<float>(i + 1), high, 1.0f), high)};
    }
    ring.init(); // its barrier also covers the reciprocals
    auto started = cluster.barrier_arrive();
    const auto *input = static_cast<const scalar_t *>(p.input);
    auto *output = static_cast<scalar_t *>(p.output);
    const int first = blockIdx.x / PARTS;
    const int step = gridDim.x / PARTS;
    if (warp < CHAIN_WARPS) {
        cluster.barrier_wait(std::move(started)); // every part runs: its memory may be written
        for (int index = first; index < p.shape.channels; index += step) {
            const Partial moments = reduce<scalar_t>(ring, p.shape, input + index * length,
                                                     part * WIDTH + threadIdx.x, reciprocals);
            ring.send_result(first_lane(merge_planes_warp(moments)));
        }
    } else if (warp < CHAIN_WARPS + APPLY_WARPS) {
        for (int index = first; index < p.shape.channels; index += step) {
            const ChannelBefore before = channel_before(p, index);
            const float2 total = merge_warps(ring.receive_result(), p.shape);
            const float variance = __fdiv_rn(total.y, static_cast<float>(p.shape.images * length));
            if (part == 0 && threadIdx.x == CHAIN_WARPS * 32) {
                finish_statistics(p, index, before, total.x, variance, bessel);
            }
            const Channel channel = {total.x, inverse_deviation(variance, p.eps), before.weight,
                                     before.bias};
            const auto apply = [&](const uint4(&word)[1], int offset) {
                float value[Scalar<scalar_t>::PACK];
                Scalar<scalar_t>::unpack(word[0], value);
#pragma unroll
                for (int e = 0; e < Scalar<scalar_t>::PACK; ++e) {
                    value[e] = forward_value<scalar_t>(value[e], channel, p.negative_slope);
                }
                __stcs(reinterpret_cast<uint4 *>(output + index * length + offset),
                       Scalar<scalar_t>::pack(value));
            };
            ring.template transform<REREAD_UNROLL>({input + index * length}, apply);
        }
    } else {
        for (int index = first; index < p.shape.channels; index += step) {
            ring.produce({input + index * length});
        }
    }
}

template <typename scalar_t>
cudaError_t launch(const BnLeakyReluForward &params, cudaStream_t stream) {
    const int64_t longest =
        static_cast<int64_t>(params.shape.images) * divide_up(params.shape.length, PLANE_THREADS);
    const size_t table = static_cast<size_t>(divide_up(longest, 2)) * sizeof(uint4);
    const RingShape ring = ring_shape<scalar_t>(params.shape, 1, table);
    if (ring.slots == 0) {
        return cudaErrorNotSupported;
    }
    const size_t shared = static_cast<size_t>(ring.slots) * ring.slot_packs * sizeof(uint4) + table;
    const float bessel =
        bessel_correction(static_cast<int64_t>(params.shape.images) * params.shape.length);
    static ResidentBlocks resident;
    return launch_clusters(resident, planes_forward_kernel<scalar_t>, params.shape.channels, shared,
                           stream, params, ring, bessel);
}

} // namespace

cudaError_t launch_planes_forward(const BnLeakyReluForward &params, cudaStream_t stream) {
    if (!is_aligned(params.input) || !is_aligned(params.output)) {
        return cudaErrorNotSupported;
    }
    cudaError_t error = cudaSuccess;
    const cudaError_t launched = for_type(
        params.shape.data_type, [&](auto type) { error = launch<decltype(type)>(params, stream); });
    return error == cudaSuccess ? launched : error;
}

} // namespace rp_kernels
