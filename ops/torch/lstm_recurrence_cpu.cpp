// rp::lstm_recurrence on the CPU: the kernels of ops/kernels/lstm_cpu_recurrence_impl.h.
#include <torch/library.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <algorithm>

#include "kernels/lstm_cpu_kernels.h"
#include "ops/torch/lstm_recurrence.h"

namespace rp_ops {

bool lstm_recurrence_runs_on_cpu(int64_t hidden) {
    const rp::LstmCpuIsa isa = rp::lstm_cpu_best_isa();
    return isa != rp::LstmCpuIsa::portable && hidden % rp::lstm_cpu_kernels(isa).lanes == 0;
}

namespace {

constexpr int64_t chunk = 32; // rows that go through all time steps together, in the first caches

const float *data(const at::Tensor &tensor) {
    return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}
at::Tensor contiguous(const OptionalTensor &tensor) {
    return tensor.has_value() ? tensor->contiguous() : at::Tensor();
}

const rp::LstmCpuKernels &kernels_for(int64_t hidden) {
    const rp::LstmCpuKernels &kernels = rp::lstm_cpu_kernels(rp::lstm_cpu_best_isa());
    TORCH_CHECK(hidden % kernels.lanes == 0, "rp::lstm_recurrence: no kernel for hidden size ",
                hidden, " on the CPU; there are those for multiples of ", kernels.lanes);
    return kernels;
}

template <class Rows> void for_chunks(int64_t batch, const Rows &rows) {
    at::parallel_for(0, (batch + chunk - 1) / chunk, 1, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
            rows(k, k * chunk, std::min(batch, (k + 1) * chunk));
        }
    });
}

LstmForwardResult forward_cpu(const at::Tensor &projected, const at::Tensor &weight,
                              const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                              const OptionalTensor &h_0, const OptionalTensor &c_0, bool save) {
    auto [output, h_n, c_n, saved] =
        make_lstm_forward(projected, weight, bias_ih, bias_hh, h_0, c_0, save);
    const int64_t T = output.size(0), B = output.size(1), H = output.size(2);
    const rp::LstmCpuKernels &kernels = kernels_for(H);
    const int64_t V = kernels.lanes;
    const at::Tensor inputs[] = {
        projected.contiguous(), weight.reshape({4, H / V, V, H}).permute({1, 3, 0, 2}).contiguous(),
        bias_ih.contiguous(),   bias_hh.contiguous(),
        contiguous(h_0),        contiguous(c_0)};
    const rp::LstmCpuRecurrence params = {T,
                                          B,
                                          H,
                                          data(inputs[0]),
                                          data(inputs[1]),
                                          data(inputs[2]),
                                          data(inputs[3]),
                                          data(inputs[4]),
                                          data(inputs[5]),
                                          output.mutable_data_ptr<float>(),
                                          c_n.mutable_data_ptr<float>(),
                                          save ? saved.mutable_data_ptr<float>() : nullptr,
                                          save ? saved.size(1) : 0};
    for_chunks(
        B, [&](int64_t, int64_t first, int64_t last) { kernels.recur_rows(params, first, last); });
    h_n.copy_(output.select(0, T - 1));
    return {output, h_n, c_n, saved};
}

LstmBackwardResult backward_cpu(const OptionalTensor &grad_output, const OptionalTensor &grad_h_n,
                                const OptionalTensor &grad_c_n, const at::Tensor &saved,
                                const at::Tensor &weight, int64_t batch) {
    auto [grad_projected, grad_bias, grad_h_0, grad_c_0] =
        make_lstm_backward(grad_output, grad_h_n, grad_c_n, saved, weight, batch);
    const int64_t H = weight.size(1);
    const rp::LstmCpuKernels &kernels = kernels_for(H);
    at::Tensor grad = grad_output.value_or(at::Tensor());
    if (grad.defined() && grad.stride(2) != 1) {
        grad = grad.contiguous();
    }
    const at::Tensor inputs[] = {contiguous(grad_h_n), contiguous(grad_c_n), saved.contiguous(),
                                 weight.contiguous()};
    const rp::LstmCpuRecurrenceBackward params = {saved.size(0),
                                                  batch,
                                                  H,
                                                  data(grad),
                                                  grad.defined() ? grad.stride(0) : 0,
                                                  grad.defined() ? grad.stride(1) : 0,
                                                  data(inputs[0]),
                                                  data(inputs[1]),
                                                  data(inputs[2]),
                                                  saved.size(1),
                                                  data(inputs[3]),
                                                  grad_projected.mutable_data_ptr<float>(),
                                                  grad_h_0.mutable_data_ptr<float>(),
                                                  grad_c_0.mutable_data_ptr<float>()};
    const at::Tensor shares = at::empty({(batch + chunk - 1) / chunk, 4 * H}, saved.options());
    float *share = shares.mutable_data_ptr<float>();
    for_chunks(batch, [&](int64_t k, int64_t first, int64_t last) {
        kernels.recur_rows_backward(params, first, last, share + k * 4 * H);
    });
    at::sum_out(grad_bias, shares, 0);
    return {grad_projected, grad_bias, grad_h_0, grad_c_0};
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_IMPL(rp, CPU, m) {
    m.impl("lstm_recurrence_forward", rp_ops::forward_cpu);
    m.impl("lstm_recurrence_backward", rp_ops::backward_cpu);
}
