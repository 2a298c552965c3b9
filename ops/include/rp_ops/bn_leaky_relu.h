// The Torch operators of return-predictor, for C++ callers of librp_ops.so.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace rp_ops {

// Version of this library's interface. A caller compares it with the RP_OPS_ABI_VERSION that it was
// compiled with; the call also keeps the linker from dropping the library, and its operators.
constexpr int RP_OPS_ABI_VERSION = 1;
int abi_version();

// leaky_relu(batch_norm(input)) with the bits of PyTorch's own operators, differentiable.
//   input         [N, C] or [N, C, ...], any device, layout and floating type
//   weight, bias  [C], both or neither; running_mean, running_var [C], updated in training
// Calls rp::bn_leaky_relu through the dispatcher and nothing else.
at::Tensor bn_leaky_relu(const at::Tensor &input, const std::optional<at::Tensor> &weight,
                         const std::optional<at::Tensor> &bias,
                         const std::optional<at::Tensor> &running_mean,
                         const std::optional<at::Tensor> &running_var, bool training,
                         double momentum, double eps, double negative_slope);

} // namespace rp_ops
