// BatchNorm + LeakyReLU made of PyTorch's own operators: the CPU path, the CUDA path of every input
// that the fused kernels don't take, and the definition of what the operator returns.
//
// Policy: batch_norm is called with cuDNN off, because cuDNN's order of summation is closed; its
// bits can be had with set_allow_cudnn.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

namespace rp_ops {

using OptionalTensor = std::optional<at::Tensor>;

// (output, mean [C], invstd [C], kept_bias [C]). Mean and invstd are [0] in evaluation; they have
// the accumulation type: float32 for 16-bit inputs, else the type of the input. kept_bias is the
// bias as it was, [0] without one: backward needs it and, as in eager mode, it may have changed.
using ForwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

// (grad_input, grad_weight [C], grad_bias [C]); undefined where grad_mask is false.
using BackwardResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

ForwardResult composed_forward(const at::Tensor &input, const OptionalTensor &weight,
                               const OptionalTensor &bias, const OptionalTensor &running_mean,
                               const OptionalTensor &running_var, bool training, double momentum,
                               double eps, double negative_slope);

// Computes the BatchNorm's output again instead of having kept it. Differentiable: the operators
// inside are PyTorch's, and the graph is the one that eager mode would have built.
BackwardResult composed_backward(const at::Tensor &grad_output, const at::Tensor &input,
                                 const OptionalTensor &weight, const OptionalTensor &bias,
                                 const OptionalTensor &running_mean,
                                 const OptionalTensor &running_var, bool training, double eps,
                                 double negative_slope, std::array<bool, 3> grad_mask);

// The pair itself, for transforms that must see through the operator (vmap, forward-mode AD).
at::Tensor composed_pair(const at::Tensor &input, const OptionalTensor &weight,
                         const OptionalTensor &bias, const OptionalTensor &running_mean,
                         const OptionalTensor &running_var, bool training, double momentum,
                         double eps, double negative_slope);

// Whether inputs that eager mode gives to cuDNN (3-D and more, affine, with cuDNN enabled) take
// PyTorch's pair with cuDNN inside. For the whole process; off at first. Returns the old value.
bool set_allow_cudnn(bool allow);
bool allow_cudnn();

} // namespace rp_ops
