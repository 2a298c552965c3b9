// rp::lstm_dropout on the GPU.
#include <torch/library.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/kernels/lstm_dropout.h"
#include "ops/torch/lstm_dropout.h"

namespace rp_ops {
namespace {

at::Tensor lstm_dropout_cuda(const at::Tensor &input, const at::Tensor &step, int64_t seed,
                             int64_t layer, double p) {
    check_lstm_dropout(input, step, layer, p);
    const c10::cuda::CUDAGuard guard(input.device());
    const at::Tensor source = input.contiguous();
    at::Tensor output = at::empty_like(source);
    rp_lstm_dropout_params params = {};
    params.input = source.const_data_ptr();
    params.output = output.mutable_data_ptr();
    params.step = step.const_data_ptr<int64_t>();
    params.seed = (uint64_t)seed;
    params.probability = (float)p;
    params.layer = (int32_t)layer;
    params.time_steps = (int32_t)source.size(0);
    params.batch = (int32_t)source.size(1);
    params.hidden = (int32_t)source.size(2);
    params.is_double = source.scalar_type() == at::kDouble;
    C10_CUDA_CHECK(rp_launch_lstm_dropout(&params, c10::cuda::getCurrentCUDAStream()));
    return output;
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_IMPL(rp, CUDA, m) {
    m.impl("lstm_dropout", rp_ops::lstm_dropout_cuda);
}
