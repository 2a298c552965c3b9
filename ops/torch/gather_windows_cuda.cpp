// rp::gather_windows on the GPU. Window ends are not read on the host: the caller vouches for them.
#include <torch/library.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/kernels/gather_windows.h"
#include "ops/torch/gather_windows.h"

namespace rp_ops {
namespace {

std::tuple<at::Tensor, at::Tensor>
gather_windows_cuda(const at::Tensor &features, const at::Tensor &targets,
                    const at::Tensor &window_ends, const at::Tensor &step, int64_t seed,
                    int64_t batch, int64_t rows, int64_t time_steps) {
    const c10::cuda::CUDAGuard guard(features.device());
    auto [x, y] =
        gather_windows_outputs(features, targets, window_ends, step, batch, rows, time_steps);
    rp_gather_windows_params params = {};
    params.features = features.const_data_ptr<float>();
    params.targets = targets.const_data_ptr<float>();
    params.window_ends = window_ends.const_data_ptr<int32_t>();
    params.step = step.const_data_ptr<int64_t>();
    params.x = x.mutable_data_ptr<float>();
    params.y = y.mutable_data_ptr<float>();
    params.seed = (uint64_t)seed;
    params.windows = window_ends.size(0);
    params.batch = batch;
    params.rows = (int32_t)rows;
    params.time_steps = (int32_t)time_steps;
    params.features_per_row = (int32_t)features.size(1);
    C10_CUDA_CHECK(rp_launch_gather_windows(&params, c10::cuda::getCurrentCUDAStream()));
    return {x, y};
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_IMPL(rp, CUDA, m) {
    m.impl("gather_windows", rp_ops::gather_windows_cuda);
}
