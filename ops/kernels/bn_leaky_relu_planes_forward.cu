// Training forward over PLANES in one launch, a cluster a channel.
//
// Policy: eager mode divides by the count at every value. Here d / n is a product with the
// reciprocal in two floats, exact to the last bit for n < 2^21 while |d| is 0 or within
// [2^-60, 2^100); a thread that meets another d starts its chain again with true divisions.
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_planes_ring.cuh"

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

template <typename scalar_t>
__global__ void __launch_bounds__(RING_THREADS, 2)
    planes_forward_kernel(const BnLeakyReluForward p, const RingShape shape, float bessel) {
    extern __shared__ uint4 memory[]; // the ring, then the reciprocals
    __shared__ uint64_t barriers[2 * MAXIMUM_SLOTS];
    __shared__ float2 results[PLANE_WARPS];
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    auto started = cluster.barrier_arrive();
    const int part = cluster.block_rank();
    const int index = blockIdx.x / PARTS;
    const int warp = threadIdx.x / 32;
    const int length = p.shape.length;
    assume_parameter_type<scalar_t>(p);
    const ChannelBefore before = channel_before(p, index);
    const scalar_t *input =
        static_cast<const scalar_t *>(p.input) + static_cast<int64_t>(index) * length;
    scalar_t *output = static_cast<scalar_t *>(p.output) + static_cast<int64_t>(index) * length;
    const scalar_t *const tensors[1] = {input};
    PlanesRing<scalar_t, 1> ring(p.shape, shape, memory, barriers, part);
    auto *reciprocals = reinterpret_cast<Reciprocal *>(memory + shape.slots * shape.slot_packs);
    const int longest = p.shape.images * ((length + PLANE_THREADS - 1) / PLANE_THREADS);
    for (int i = threadIdx.x; i < longest; i += RING_THREADS) {
        const float high = reciprocal_of(i + 1);
        reciprocals[i] = {high, __fmul_rn(__fmaf_rn(-static_cast<float>(i + 1), high, 1.0f), high)};
    }
    ring.init(); // its barrier also covers the reciprocals
    if (warp >= CHAIN_WARPS && warp < CHAIN_WARPS + COPY_WARPS) {
        ring.produce(tensors);
    }

    Partial partial = {};
    if (warp < CHAIN_WARPS) {
        Chain chain;
        const Reciprocal *reciprocal = reciprocals;
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
            partial.count += count;
        });
        partial.first = chain.mean;
        partial.second = chain.m2;
        if (!chain.is_exact()) {
            partial = divided_chain(input, p.shape, part * WIDTH + threadIdx.x);
        }
        __syncwarp();
    }
    cluster.barrier_wait(std::move(started)); // every part runs: its memory may be written
    const int lane = threadIdx.x % 32;
    const int last = min(max(length % PLANE_THREADS - lane * 32, 0), 32);
    const int count_of_lane = p.shape.images * (length / PLANE_THREADS * 32 + last);
    const Partial total =
        merge_cluster(partial, results, part, count_of_lane,
                      [](const Partial &part_of) { return merge_planes_warp(part_of); });

    const float values = static_cast<float>(p.shape.images * length);
    const float variance = __fdiv_rn(total.second, values);
    const Channel channel = {total.first, inverse_deviation(variance, p.eps), before.weight,
                             before.bias};
    if (part == 0 && threadIdx.x == 0) {
        finish_statistics(p, index, before, total.first, variance, bessel);
    }
    ring.template transform<REREAD_UNROLL>(tensors, [&](const uint4(&word)[1], int offset) {
        float value[Scalar<scalar_t>::PACK];
        Scalar<scalar_t>::unpack(word[0], value);
#pragma unroll
        for (int e = 0; e < Scalar<scalar_t>::PACK; ++e) {
            value[e] = forward_value<scalar_t>(value[e], channel, p.negative_slope);
        }
        __stcs(reinterpret_cast<uint4 *>(output + offset), Scalar<scalar_t>::pack(value));
    });
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
    return launch_clusters(planes_forward_kernel<scalar_t>, params.shape.channels, shared, stream,
                           params, ring, bessel);
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
