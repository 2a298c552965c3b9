// Training backward over PLANES in one launch, a cluster a channel.
//   grad_input = rn(invstd * w * rn(fma(-f, x - mean, dy) - mean of dy))
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_planes_ring.cuh"

#include <utility>

namespace rp_kernels {
namespace {

template <typename scalar_t>
__global__ void __launch_bounds__(RING_THREADS, 2)
    planes_backward_kernel(const BnLeakyReluBackward p, const RingShape shape, float reciprocal) {
    constexpr int CHAIN_UNROLL = Scalar<scalar_t>::NARROW ? 8 : 6;
    constexpr int REREAD_UNROLL = Scalar<scalar_t>::NARROW ? 4 : 3;
    extern __shared__ uint4 memory[]; // the ring
    __shared__ uint64_t barriers[2 * MAXIMUM_SLOTS];
    __shared__ float2 results[PLANE_WARPS];
    namespace cg = cooperative_groups;
    cg::cluster_group cluster = cg::this_cluster();
    auto started = cluster.barrier_arrive();
    const int part = cluster.block_rank();
    const int index = blockIdx.x / PARTS;
    const int warp = threadIdx.x / 32;
    const int64_t start = static_cast<int64_t>(index) * p.shape.length;
    const scalar_t *const tensors[2] = {static_cast<const scalar_t *>(p.input) + start,
                                        static_cast<const scalar_t *>(p.grad_output) + start};
    scalar_t *grad_input = static_cast<scalar_t *>(p.grad_input) + start;
    assume_parameter_type<scalar_t>(p);
    const Channel channel = channel_in_training(p, index);
    PlanesRing<scalar_t, 2> ring(p.shape, shape, memory, barriers, part);
    ring.init();
    if (warp >= CHAIN_WARPS && warp < CHAIN_WARPS + COPY_WARPS) {
        ring.produce(tensors);
    }

    Partial sums = {};
    if (warp < CHAIN_WARPS) {
        const int grad_at = ring.tensor_stride();
        const auto add = [&](scalar_t value, scalar_t grad) {
            const float centered = center(Scalar<scalar_t>::widen(value), channel);
            add_planes_gradient<scalar_t>(sums, centered,
                                          gradient_of_y<scalar_t>(centered,
                                                                  Scalar<scalar_t>::widen(grad),
                                                                  channel, p.negative_slope));
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
    }
    cluster.barrier_wait(std::move(started)); // every part runs: its memory may be written
    const Partial total = merge_cluster(sums, results, part, 0, [](const Partial &part_of) {
        return add_planes_warp<scalar_t>(part_of);
    });
    const PlanesGradient gradient =
        planes_gradient(total.first, total.second, channel.weight, channel.invstd, reciprocal);
    if (part == 0 && threadIdx.x == 0) {
        finish_parameters(p, index, total.first, total.second, channel.invstd);
    }
    ring.template transform<REREAD_UNROLL>(tensors, [&](const uint4(&word)[2], int offset) {
        float value[Scalar<scalar_t>::PACK], grad[Scalar<scalar_t>::PACK];
        Scalar<scalar_t>::unpack(word[0], value);
        Scalar<scalar_t>::unpack(word[1], grad);
#pragma unroll
        for (int e = 0; e < Scalar<scalar_t>::PACK; ++e) {
            const float centered = center(value[e], channel);
            value[e] = grad_input_planes(
                centered, gradient_of_y<scalar_t>(centered, grad[e], channel, p.negative_slope),
                gradient);
        }
        __stcs(reinterpret_cast<uint4 *>(grad_input + offset), Scalar<scalar_t>::pack(value));
    });
}

template <typename scalar_t>
cudaError_t launch(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const RingShape ring = ring_shape<scalar_t>(params.shape, 2, 0);
    if (ring.slots == 0) {
        return cudaErrorNotSupported;
    }
    const size_t shared = static_cast<size_t>(ring.slots) * 2 * ring.slot_packs * sizeof(uint4);
    const int64_t values = static_cast<int64_t>(params.shape.images) * params.shape.length;
    return launch_clusters(planes_backward_kernel<scalar_t>, params.shape.channels, shared, stream,
                           params, ring, 1.0f / static_cast<float>(values));
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
