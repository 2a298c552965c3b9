// Training backward over PLANES in one launch, a cluster a channel.
//   grad_input = rn(invstd * w * rn(fma(-f, x - mean, dy) - mean of dy))
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_planes_ring.cuh"

#include <cooperative_groups.h>

#include <utility>

namespace rp_kernels {
namespace {

// One channel by the chain warps: the sums of this thread.
template <typename scalar_t>
__device__ __forceinline__ Partial reduce(PlanesRing<scalar_t, 2> &ring, const Channel &channel,
                                          float slope) {
    constexpr int CHAIN_UNROLL = Scalar<scalar_t>::NARROW ? 8 : 6;
    Partial sums = {};
    const int grad_at = ring.tensor_stride();
    const auto add = [&](scalar_t value, scalar_t grad) {
        const float centered = center(Scalar<scalar_t>::widen(value), channel);
        add_planes_gradient<scalar_t>(
            sums, centered,
            gradient_of_y<scalar_t>(centered, Scalar<scalar_t>::widen(grad), channel, slope));
    };
    ring.consume([&](const scalar_t *values, int count) {
        int k = 0;
        for (; k + CHAIN_UNROLL <= count; k += CHAIN_UNROLL) {
            scalar_t value[CHAIN_UNROLL], grad[CHAIN_UNROLL];
#pragma unroll
            for (int u = 0; u < CHAIN_UNROLL; ++u) {
                value[u] = values[(k + u) * WIDTH];
                grad[u] = values[grad_at + (k + u) * WIDTH];
            }
#pragma unroll
            for (int u = 0; u < CHAIN_UNROLL; ++u) {
                add(value[u], grad[u]);
            }
        }
        for (; k < count; ++k) {
            add(values[k * WIDTH], values[grad_at + k * WIDTH]);
        }
    });
    __syncwarp();
    return sums;
}

template <typename scalar_t>
__global__ void __launch_bounds__(RING_THREADS, 1)
    planes_backward_kernel(const BnLeakyReluBackward p, const RingShape shape, float reciprocal) {
    constexpr int REREAD_UNROLL = Scalar<scalar_t>::NARROW ? 4 : 3;
    extern __shared__ uint4 images[]; // the ring
    __shared__ RingMemory memory;
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    const int part = cluster.block_rank();
    const int warp = threadIdx.x / 32;
    assume_parameter_type<scalar_t>(p);
    PlanesRing<scalar_t, 2> ring(p.shape, shape, images, &memory, part);
    ring.init();
    auto started = cluster.barrier_arrive();
    const auto *input = static_cast<const scalar_t *>(p.input);
    const auto *grad_output = static_cast<const scalar_t *>(p.grad_output);
    auto *grad_input = static_cast<scalar_t *>(p.grad_input);
    const int length = p.shape.length;
    const int first = blockIdx.x / PARTS;
    const int step = gridDim.x / PARTS;
    if (warp < CHAIN_WARPS) {
        cluster.barrier_wait(std::move(started)); // every part runs: its memory may be written
        Channel next = channel_in_training(p, first);
        for (int index = first; index < p.shape.channels; index += step) {
            const Channel channel = next;
            next = channel_in_training(p, min(index + step, p.shape.channels - 1));
            const Partial sums = reduce<scalar_t>(ring, channel, p.negative_slope);
            ring.send_result(first_lane(add_planes_warp<scalar_t>(sums)));
        }
    } else if (warp < CHAIN_WARPS + APPLY_WARPS) {
        for (int index = first; index < p.shape.channels; index += step) {
            const Channel channel = channel_in_training(p, index);
            const float2 result = ring.receive_result();
            const float2 total = first_lane(add_planes_warp<scalar_t>({0, result.x, result.y}));
            if (part == 0 && threadIdx.x == CHAIN_WARPS * 32) {
                finish_parameters(p, index, total.x, total.y, channel.invstd);
            }
            const PlanesGradient gradient =
                planes_gradient(total.x, total.y, channel.weight, channel.invstd, reciprocal);
            const auto apply = [&](const uint4(&word)[2], int offset) {
                float value[Scalar<scalar_t>::PACK], grad[Scalar<scalar_t>::PACK];
                Scalar<scalar_t>::unpack(word[0], value);
                Scalar<scalar_t>::unpack(word[1], grad);
#pragma unroll
                for (int e = 0; e < Scalar<scalar_t>::PACK; ++e) {
                    const float centered = center(value[e], channel);
                    const float dy =
                        gradient_of_y<scalar_t>(centered, grad[e], channel, p.negative_slope);
                    value[e] = grad_input_planes(centered, dy, gradient);
                }
                __stcs(reinterpret_cast<uint4 *>(grad_input + index * length + offset),
                       Scalar<scalar_t>::pack(value));
            };
            ring.template transform<REREAD_UNROLL>(
                {input + index * length, grad_output + index * length}, apply);
        }
    } else {
        for (int index = first; index < p.shape.channels; index += step) {
            ring.produce({input + index * length, grad_output + index * length});
        }
    }
}

template <typename scalar_t>
cudaError_t launch(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const RingShape ring = ring_shape<scalar_t>(params.shape, 2, 0);
    if (ring.slots == 0) {
        return cudaErrorNotSupported;
    }
    const size_t shared = static_cast<size_t>(ring.slots) * 2 * ring.slot_packs * sizeof(uint4);
    const int64_t values = static_cast<int64_t>(params.shape.images) * params.shape.length;
    static ResidentBlocks resident;
    return launch_clusters(resident, planes_backward_kernel<scalar_t>, params.shape.channels,
                           shared, stream, params, ring, 1.0f / static_cast<float>(values));
}

} // namespace

cudaError_t launch_planes_backward(const BnLeakyReluBackward &params, cudaStream_t stream) {
    if (!is_aligned(params.input) || !is_aligned(params.grad_output) ||
        !is_aligned(params.grad_input)) {
        return cudaErrorNotSupported;
    }
    cudaError_t error = cudaSuccess;
    const cudaError_t launched = for_type(
        params.shape.data_type, [&](auto type) { error = launch<decltype(type)>(params, stream); });
    return error == cudaSuccess ? launched : error;
}

} // namespace rp_kernels
