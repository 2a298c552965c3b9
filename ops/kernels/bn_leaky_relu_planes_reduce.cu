// Statistics and sums of any PLANES shape: eager mode's own mapping, a block of 512 threads a
// channel, with several loads in flight.
#include "bn_leaky_relu_channel.cuh"
#include "bn_leaky_relu_launch.cuh"
#include "bn_leaky_relu_parts.h"
#include "bn_leaky_relu_planes_merge.cuh"

namespace rp_kernels {
namespace {

constexpr int LOADS = 8; // in flight, a thread

// The elements of a channel that one thread takes, in order: along the plane, then image by image.
class PlaneWalk {
  public:
    __device__ PlaneWalk(const BnLeakyReluShape &shape, int channel)
        : along_(threads_along_plane(shape.length)), length_(shape.length),
          start_(threadIdx.x % along_), position_(start_),
          image_(static_cast<int>(threadIdx.x) / along_), images_step_(PLANE_THREADS / along_),
          image_stride_(static_cast<int64_t>(shape.channels) * shape.length),
          base_(static_cast<int64_t>(channel) * shape.length) {
        const int trips = start_ < length_ ? 1 + (length_ - 1 - start_) / along_ : 0;
        const int images =
            image_ < shape.images ? 1 + (shape.images - 1 - image_) / images_step_ : 0;
        count_ = trips * images;
    }
    __device__ int count() const { return count_; }
    // Offset of the next element.
    __device__ int64_t next() {
        const int64_t offset = base_ + image_ * image_stride_ + position_;
        position_ += along_;
        if (position_ >= length_) {
            position_ = start_;
            image_ += images_step_;
        }
        return offset;
    }

  private:
    int along_, length_, start_, position_, image_, images_step_;
    int64_t image_stride_, base_;
    int count_;
};

// The 16 warps' results, and empty ones, through a second warp-wide merge; every thread returns
// thread 0's.
template <typename Merge> __device__ Partial merge_warps(Partial partial, const Merge &merge) {
    __shared__ Partial warps[PLANE_WARPS];
    partial = merge(partial);
    if (threadIdx.x % 32 == 0) {
        warps[threadIdx.x / 32] = partial;
    }
    __syncthreads(); // all warps' results are there
    const int lane = threadIdx.x % 32;
    return merge(lane < PLANE_WARPS ? warps[lane] : Partial{});
}

template <typename scalar_t>
__global__ void __launch_bounds__(PLANE_THREADS)
    planes_statistics_kernel(const BnLeakyReluForward p, float bessel) {
    const int channel = blockIdx.x;
    const scalar_t *input = static_cast<const scalar_t *>(p.input);
    PlaneWalk walk(p.shape, channel);
    Partial partial = {};
    for (int k = 0; k < walk.count(); k += LOADS) {
        float value[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            if (k + i < walk.count()) {
                value[i] = Scalar<scalar_t>::widen(input[walk.next()]);
            }
        }
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            if (k + i < walk.count()) {
                partial.count += 1;
                welford_planes(partial.first, partial.second, value[i],
                               static_cast<float>(partial.count));
            }
        }
    }
    partial = merge_warps(partial, [](const Partial &part) { return merge_planes_warp(part); });
    if (threadIdx.x == 0) {
        const float values = static_cast<float>(p.shape.images * p.shape.length);
        finish_statistics(p, channel, channel_before(p, channel), partial.first,
                          __fdiv_rn(partial.second, values), bessel);
    }
}

template <typename scalar_t>
__global__ void __launch_bounds__(PLANE_THREADS)
    planes_sums_kernel(const BnLeakyReluBackward p, const Workspace workspace) {
    const int index = blockIdx.x;
    const scalar_t *input = static_cast<const scalar_t *>(p.input);
    const scalar_t *grad_output = static_cast<const scalar_t *>(p.grad_output);
    const Channel channel = channel_of(p, index);
    PlaneWalk walk(p.shape, index);
    Partial sums = {};
    for (int k = 0; k < walk.count(); k += LOADS) {
        float value[LOADS], grad[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            if (k + i < walk.count()) {
                const int64_t offset = walk.next();
                value[i] = Scalar<scalar_t>::widen(input[offset]);
                grad[i] = Scalar<scalar_t>::widen(grad_output[offset]);
            }
        }
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            if (k + i < walk.count()) {
                const float centered = center(value[i], channel);
                add_planes_gradient<scalar_t>(
                    sums, centered,
                    gradient_of_y<scalar_t>(centered, grad[i], channel, p.negative_slope));
            }
        }
    }
    sums = merge_warps(sums, [](const Partial &part) { return add_planes_warp<scalar_t>(part); });
    if (threadIdx.x == 0) {
        workspace.sum[index] = sums.first;
        workspace.dot[index] = sums.second;
        finish_parameters(p, index, sums.first, sums.second, planes_invstd(p, index));
    }
}

} // namespace

cudaError_t launch_planes_statistics(const BnLeakyReluForward &params, cudaStream_t stream) {
    const float bessel =
        bessel_correction(static_cast<int64_t>(params.shape.images) * params.shape.length);
    return for_type(params.shape.data_type, [&](auto type) {
        planes_statistics_kernel<decltype(type)>
            <<<params.shape.channels, PLANE_THREADS, 0, stream>>>(params, bessel);
    });
}

cudaError_t launch_planes_sums(const BnLeakyReluBackward &params, cudaStream_t stream) {
    const Workspace workspace = workspace_of(params.shape, params.workspace);
    return for_type(params.shape.data_type, [&](auto type) {
        planes_sums_kernel<decltype(type)>
            <<<params.shape.channels, PLANE_THREADS, 0, stream>>>(params, workspace);
    });
}

} // namespace rp_kernels
