// Which inputs the fused CUDA kernels take.
#pragma once

#include "bn_leaky_relu_composed.h"

namespace rp_ops {

// False on the CPU, and in a build without CUDA.
bool fuses_forward(const at::Tensor &input, const OptionalTensor &weight,
                   const OptionalTensor &bias, const OptionalTensor &running_mean,
                   const OptionalTensor &running_var, bool training);
bool fuses_backward(const at::Tensor &input, const OptionalTensor &weight,
                    const OptionalTensor &bias, const OptionalTensor &running_mean,
                    const OptionalTensor &running_var, bool training,
                    std::array<bool, 3> grad_mask);

} // namespace rp_ops
