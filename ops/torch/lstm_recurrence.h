// rp::lstm_recurrence: one LSTM layer after the product of its input and weight_ih.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace rp_ops {

using OptionalTensor = std::optional<at::Tensor>;

// Differentiable. projected [T, B, 4H] = input weight_ih^T; weight [4H, H]; bias_ih, bias_hh [4H];
// h_0, c_0 [B, H], or none for zeros: all float32. Returns output [T, B, H], h_n and c_n [B, H].
std::tuple<at::Tensor, at::Tensor, at::Tensor>
lstm_recurrence(const at::Tensor &projected, const at::Tensor &weight, const at::Tensor &bias_ih,
                const at::Tensor &bias_hh, const OptionalTensor &h_0, const OptionalTensor &c_0);

// Whether there is a kernel for the hidden size on the GPU (none in a build without CUDA), and on
// the CPU.
bool lstm_recurrence_runs(const at::Device &gpu, int64_t hidden);
bool lstm_recurrence_runs_on_cpu(int64_t hidden);

// output, h_n, c_n, and if asked for, what backward needs: numbers in the device's own order, as
// many as [T, B rounded up to 8, 5H].
using LstmForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// Gradients of projected, of either bias, of h_0 and c_0.
using LstmBackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

LstmForwardResult make_lstm_forward(const at::Tensor &projected, const at::Tensor &weight,
                                    const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                                    const OptionalTensor &h_0, const OptionalTensor &c_0,
                                    bool save);
LstmBackwardResult make_lstm_backward(const OptionalTensor &grad_output,
                                      const OptionalTensor &grad_h_n,
                                      const OptionalTensor &grad_c_n, const at::Tensor &saved,
                                      const at::Tensor &weight, c10::SymInt batch);

} // namespace rp_ops
