// rp::lstm_train_ on the GPU: the persistent kernel of ops/kernels/lstm_train_kernel.cuh.
#include <torch/library.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/kernels/lstm_train.h"
#include "ops/torch/lstm_train.h"

namespace rp_ops {
namespace {

rp_lstm_precision precision_of(c10::string_view name) {
    for (const auto &[known, precision] :
         {std::pair("fp16", RP_LSTM_FP16), std::pair("bf16", RP_LSTM_BF16),
          std::pair("tf32", RP_LSTM_TF32), std::pair("fp32", RP_LSTM_FP32)}) {
        if (name == known) {
            return precision;
        }
    }
    TORCH_CHECK(false, "rp::lstm_train_: precision must be fp16, bf16, tf32 or fp32, got ", name);
}

// Why the kernel can't train this shape; "" when it can. Needs no GPU to answer; a build without
// CUDA kernels does not have this operator.
std::string lstm_train_unsupported(int64_t features, int64_t time_steps, int64_t hidden,
                                   int64_t layers, int64_t batch, c10::string_view precision) {
    const rp_lstm_train_shape shape = {1,
                                       (int32_t)features,
                                       (int32_t)time_steps,
                                       (int32_t)hidden,
                                       (int32_t)layers,
                                       (int32_t)batch,
                                       precision_of(precision)};
    const char *reason;
    return rp_lstm_train_supported(&shape, &reason) ? "" : reason;
}

void lstm_train_cuda(at::Tensor &parameters, at::Tensor &exp_avg, at::Tensor &exp_avg_sq,
                     at::Tensor &running_mean, at::Tensor &running_var, at::Tensor &losses,
                     at::Tensor &scale_state, const at::Tensor &features, const at::Tensor &targets,
                     const at::Tensor &window_ends, const at::Tensor &window_ranges,
                     const at::Tensor &seeds, const at::Tensor &learning_rates, int64_t first_step,
                     int64_t steps, int64_t batch, int64_t time_steps, int64_t hidden,
                     int64_t layers, double dropout, double momentum, double norm_eps,
                     double negative_slope, double beta1, double beta2, double adam_eps,
                     c10::string_view precision) {
    const LstmTrainSizes sizes = check_lstm_train(
        {parameters, exp_avg, exp_avg_sq, running_mean, running_var, losses, scale_state, features,
         targets, window_ends, window_ranges, seeds, learning_rates},
        first_step, steps, batch, time_steps, hidden, layers, dropout);
    check_window_ranges(window_ranges, window_ends.size(0), batch);
    if (steps == 0 || sizes.models == 0) {
        return;
    }
    const c10::cuda::CUDAGuard guard(parameters.device());
    TORCH_CHECK(c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::None,
                "rp::lstm_train_ can't be captured in a CUDA graph: a replay would train the same "
                "steps again, for first_step is a number of the host; one call takes any number of "
                "steps");
    rp_lstm_train_params params = {};
    params.shape = {(int32_t)sizes.models,  (int32_t)sizes.features, (int32_t)time_steps,
                    (int32_t)hidden,        (int32_t)layers,         (int32_t)batch,
                    precision_of(precision)};
    const char *reason;
    TORCH_CHECK(rp_lstm_train_supported(&params.shape, &reason), "rp::lstm_train_: ", reason);
    rp_lstm_train_plan plan;
    C10_CUDA_CHECK(rp_lstm_train_plan_make(&plan, &params.shape));

    // Pageable memory has been read when a copy's call returns, and needs no wait for the device.
    const auto to_device = [&](const at::Tensor &of_host) {
        return of_host.contiguous().to(parameters.device(),
                                       /*non_blocking=*/!of_host.is_pinned());
    };
    const at::Tensor ranges = to_device(window_ranges), device_seeds = to_device(seeds);
    const at::Tensor rates = to_device(learning_rates.to(at::kFloat));
    const at::Tensor workspace =
        at::empty({(int64_t)plan.workspace_bytes}, parameters.options().dtype(at::kByte));
    params.first_step = first_step;
    params.steps = (int32_t)steps;
    params.features = features.const_data_ptr<float>();
    params.targets = targets.const_data_ptr<float>();
    params.window_ends = window_ends.const_data_ptr<int32_t>();
    params.window_ranges = ranges.const_data_ptr<int64_t>();
    params.seeds = device_seeds.const_data_ptr<int64_t>();
    params.learning_rates = rates.const_data_ptr<float>();
    params.parameters = parameters.mutable_data_ptr<float>();
    params.exp_avg = exp_avg.mutable_data_ptr<float>();
    params.exp_avg_sq = exp_avg_sq.mutable_data_ptr<float>();
    params.running_mean = running_mean.mutable_data_ptr<float>();
    params.running_var = running_var.mutable_data_ptr<float>();
    params.losses = losses.mutable_data_ptr<float>();
    params.scale_state = scale_state.mutable_data_ptr<float>();
    params.dropout = (float)dropout;
    params.momentum = (float)momentum;
    params.norm_eps = (float)norm_eps;
    params.negative_slope = (float)negative_slope;
    params.beta1 = beta1;
    params.beta2 = beta2;
    params.adam_eps = (float)adam_eps;
    params.workspace = workspace.data_ptr();
    C10_CUDA_CHECK(rp_launch_lstm_train(&params, &plan, c10::cuda::getCurrentCUDAStream()));
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_IMPL(rp, CUDA, m) {
    m.impl("lstm_train_", rp_ops::lstm_train_cuda);
}
TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("lstm_train_unsupported(int features, int time_steps, int hidden, int layers, "
          "int batch, str precision) -> str",
          torch::dispatch(c10::DispatchKey::CompositeExplicitAutograd,
                          rp_ops::lstm_train_unsupported));
}
