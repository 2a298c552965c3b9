// CPU: PyTorch's own operators; the bits are its own by construction.
#include "bn_leaky_relu_composed.h"
#include "checks.h"

#include <torch/library.h>

namespace rp_ops {
namespace {

ForwardResult forward_cpu(const at::Tensor &input, const OptionalTensor &weight,
                          const OptionalTensor &bias, const OptionalTensor &running_mean,
                          const OptionalTensor &running_var, bool training, double momentum,
                          double eps, double negative_slope) {
    check_values_per_channel(input, training);
    return composed_forward(input, weight, bias, running_mean, running_var, training, momentum, eps,
                            negative_slope);
}

BackwardResult backward_cpu(const at::Tensor &grad_output, const at::Tensor &input,
                            const OptionalTensor &weight, const OptionalTensor &bias,
                            const OptionalTensor &running_mean, const OptionalTensor &running_var,
                            const at::Tensor &, const at::Tensor &, bool training, double eps,
                            double negative_slope, std::array<bool, 3> grad_mask) {
    return composed_backward(grad_output, input, weight, bias, running_mean, running_var, training,
                             eps, negative_slope, grad_mask);
}

} // namespace

TORCH_LIBRARY_IMPL(rp, CPU, m) {
    m.impl("bn_leaky_relu_forward", &forward_cpu);
    m.impl("bn_leaky_relu_backward", &backward_cpu);
}

} // namespace rp_ops
