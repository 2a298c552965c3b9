// rp::lstm_recurrence on the GPU: the kernels of ops/kernels/lstm_recurrence.cuh.
#include <torch/library.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/kernels/lstm_recurrence.h"
#include "ops/torch/lstm_recurrence.h"

namespace rp_ops {

// The library's kernels are made for Hopper.
bool lstm_recurrence_runs(const at::Device &device, int64_t hidden) {
    int major = 0;
    return device.is_cuda() && (hidden == 32 || hidden == 64) &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()) ==
               cudaSuccess &&
           major == 9;
}

namespace {

// Contiguous, and where 16-byte loads want it so.
at::Tensor ready(const at::Tensor &tensor) {
    const at::Tensor whole = tensor.contiguous();
    return reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % 16 ? whole.clone() : whole;
}
at::Tensor ready(const OptionalTensor &tensor) {
    return tensor.has_value() ? ready(*tensor) : at::Tensor();
}
const float *data(const at::Tensor &tensor) {
    return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

rp_lstm_recurrence_shape shape_of(const at::Tensor &any, int64_t time_steps, int64_t batch,
                                  int64_t hidden) {
    TORCH_CHECK(lstm_recurrence_runs(any.device(), hidden), "rp::lstm_recurrence: no kernel for ",
                "hidden size ", hidden, " on ", any.device(),
                "; there are those for 32 and 64 on "
                "GPUs of compute capability 9");
    TORCH_CHECK(time_steps <= INT32_MAX && batch <= INT32_MAX, "rp::lstm_recurrence: ", time_steps,
                " time steps of ", batch, " rows are too many");
    return {(int32_t)time_steps, (int32_t)batch, (int32_t)hidden};
}

LstmForwardResult forward_cuda(const at::Tensor &projected, const at::Tensor &weight,
                               const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                               const OptionalTensor &h_0, const OptionalTensor &c_0, bool save) {
    const c10::cuda::CUDAGuard guard(projected.device());
    auto [output, h_n, c_n, saved] =
        make_lstm_forward(projected, weight, bias_ih, bias_hh, h_0, c_0, save);
    const at::Tensor inputs[] = {ready(projected), ready(weight), ready(bias_ih),
                                 ready(bias_hh),   ready(h_0),    ready(c_0)};
    const rp_lstm_recurrence_forward params = {
        shape_of(projected, output.size(0), output.size(1), output.size(2)),
        data(inputs[0]),
        data(inputs[1]),
        data(inputs[2]),
        data(inputs[3]),
        data(inputs[4]),
        data(inputs[5]),
        output.mutable_data_ptr<float>(),
        h_n.mutable_data_ptr<float>(),
        c_n.mutable_data_ptr<float>(),
        save ? saved.mutable_data_ptr<float>() : nullptr};
    C10_CUDA_CHECK(rp_launch_lstm_recurrence_forward(&params, c10::cuda::getCurrentCUDAStream()));
    return {output, h_n, c_n, saved};
}

LstmBackwardResult backward_cuda(const OptionalTensor &grad_output, const OptionalTensor &grad_h_n,
                                 const OptionalTensor &grad_c_n, const at::Tensor &saved,
                                 const at::Tensor &weight, int64_t batch) {
    const c10::cuda::CUDAGuard guard(saved.device());
    auto [grad_projected, grad_bias, grad_h_0, grad_c_0] =
        make_lstm_backward(grad_output, grad_h_n, grad_c_n, saved, weight, batch);
    const int64_t H = weight.size(1);
    at::Tensor grad = grad_output.value_or(at::Tensor());
    if (grad.defined() && grad.stride(2) != 1) {
        grad = grad.contiguous();
    }
    const int64_t blocks = (batch + RP_LSTM_RECURRENCE_ROWS - 1) / RP_LSTM_RECURRENCE_ROWS;
    const at::Tensor shares = blocks == 1 ? grad_bias : at::empty({blocks, 4 * H}, saved.options());
    const at::Tensor inputs[] = {ready(grad_h_n), ready(grad_c_n), ready(saved), ready(weight)};
    const rp_lstm_recurrence_backward params = {shape_of(saved, saved.size(0), batch, H),
                                                data(grad),
                                                grad.defined() ? grad.stride(0) : 0,
                                                grad.defined() ? grad.stride(1) : 0,
                                                data(inputs[0]),
                                                data(inputs[1]),
                                                data(inputs[2]),
                                                data(inputs[3]),
                                                grad_projected.mutable_data_ptr<float>(),
                                                shares.mutable_data_ptr<float>(),
                                                grad_h_0.mutable_data_ptr<float>(),
                                                grad_c_0.mutable_data_ptr<float>()};
    C10_CUDA_CHECK(rp_launch_lstm_recurrence_backward(&params, c10::cuda::getCurrentCUDAStream()));
    if (blocks > 1) {
        at::sum_out(grad_bias, shares, 0);
    }
    return {grad_projected, grad_bias, grad_h_0, grad_c_0};
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_IMPL(rp, CUDA, m) {
    m.impl("lstm_recurrence_forward", rp_ops::forward_cuda);
    m.impl("lstm_recurrence_backward", rp_ops::backward_cuda);
}
