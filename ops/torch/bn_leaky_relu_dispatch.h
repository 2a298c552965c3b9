// Calls of the forward and backward operators through the dispatcher, for the other dispatch keys.
#pragma once

#include "bn_leaky_relu_composed.h"

namespace rp_ops {

ForwardResult dispatch_forward(const at::Tensor &input, const OptionalTensor &weight,
                               const OptionalTensor &bias, const OptionalTensor &running_mean,
                               const OptionalTensor &running_var, bool training, double momentum,
                               double eps, double negative_slope);

BackwardResult dispatch_backward(const at::Tensor &grad_output, const at::Tensor &input,
                                 const OptionalTensor &weight, const OptionalTensor &bias,
                                 const OptionalTensor &running_mean,
                                 const OptionalTensor &running_var, const at::Tensor &mean,
                                 const at::Tensor &invstd, bool training, double eps,
                                 double negative_slope, std::array<bool, 3> grad_mask);

} // namespace rp_ops
