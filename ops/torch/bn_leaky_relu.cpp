// Schemas of rp::bn_leaky_relu and the two operators beneath it, and the C++ functions that call
// them. The kernels are registered in one file a dispatch key.
#include "rp_ops/bn_leaky_relu.h"

#include "bn_leaky_relu_composed.h"
#include "bn_leaky_relu_dispatch.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace rp_ops {
namespace {

constexpr const char *SCHEMA =
    "bn_leaky_relu(Tensor input, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, "
    "Tensor(b!)? running_var, bool training, float momentum, float eps, float negative_slope) "
    "-> Tensor";
constexpr const char *FORWARD_SCHEMA =
    "bn_leaky_relu_forward(Tensor input, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, "
    "Tensor(b!)? running_var, bool training, float momentum, float eps, float negative_slope) "
    "-> (Tensor output, Tensor mean, Tensor invstd, Tensor kept_bias)";
constexpr const char *BACKWARD_SCHEMA =
    "bn_leaky_relu_backward(Tensor grad_output, Tensor input, Tensor? weight, Tensor? bias, "
    "Tensor? running_mean, Tensor? running_var, Tensor mean, Tensor invstd, bool training, "
    "float eps, float negative_slope, bool[3] grad_mask) "
    "-> (Tensor grad_input, Tensor grad_weight, Tensor grad_bias)";

at::Tensor output_of_forward(const at::Tensor &input, const OptionalTensor &weight,
                             const OptionalTensor &bias, const OptionalTensor &running_mean,
                             const OptionalTensor &running_var, bool training, double momentum,
                             double eps, double negative_slope) {
    return std::get<0>(dispatch_forward(input, weight, bias, running_mean, running_var, training,
                                        momentum, eps, negative_slope));
}

} // namespace

int abi_version() {
    return RP_OPS_ABI_VERSION;
}

at::Tensor bn_leaky_relu(const at::Tensor &input, const OptionalTensor &weight,
                         const OptionalTensor &bias, const OptionalTensor &running_mean,
                         const OptionalTensor &running_var, bool training, double momentum,
                         double eps, double negative_slope) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::bn_leaky_relu", "")
                               .typed<decltype(bn_leaky_relu)>();
    return op.call(input, weight, bias, running_mean, running_var, training, momentum, eps,
                   negative_slope);
}

ForwardResult dispatch_forward(const at::Tensor &input, const OptionalTensor &weight,
                               const OptionalTensor &bias, const OptionalTensor &running_mean,
                               const OptionalTensor &running_var, bool training, double momentum,
                               double eps, double negative_slope) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::bn_leaky_relu_forward", "")
                               .typed<decltype(dispatch_forward)>();
    return op.call(input, weight, bias, running_mean, running_var, training, momentum, eps,
                   negative_slope);
}

BackwardResult dispatch_backward(const at::Tensor &grad_output, const at::Tensor &input,
                                 const OptionalTensor &weight, const OptionalTensor &bias,
                                 const OptionalTensor &running_mean,
                                 const OptionalTensor &running_var, const at::Tensor &mean,
                                 const at::Tensor &invstd, bool training, double eps,
                                 double negative_slope, std::array<bool, 3> grad_mask) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::bn_leaky_relu_backward", "")
                               .typed<decltype(dispatch_backward)>();
    return op.call(grad_output, input, weight, bias, running_mean, running_var, mean, invstd,
                   training, eps, negative_slope, grad_mask);
}

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def(SCHEMA, {at::Tag::pt2_compliant_tag});
    m.def(FORWARD_SCHEMA, {at::Tag::pt2_compliant_tag});
    m.def(BACKWARD_SCHEMA, {at::Tag::pt2_compliant_tag});
    m.def("set_allow_cudnn(bool allow) -> bool", &set_allow_cudnn);
}

TORCH_LIBRARY_IMPL(rp, CompositeExplicitAutograd, m) {
    m.impl("bn_leaky_relu", &output_of_forward);
}

} // namespace rp_ops
