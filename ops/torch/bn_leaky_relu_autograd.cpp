// Autograd of rp::bn_leaky_relu, and of its backward.
//
// Policy: one activation is kept, the input. The output of the BatchNorm, which eager mode keeps
// for the LeakyReLU, is computed again, from a copy of the bias and, in evaluation, of the running
// statistics: as in eager mode these may have changed since (training moves the latter unseen). A
// second derivative is left to PyTorch's own operators.
#include "bn_leaky_relu_composed.h"
#include "bn_leaky_relu_dispatch.h"
#include "transforms.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/library.h>

namespace rp_ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool defined(const OptionalTensor &tensor) {
    return tensor.has_value() && tensor->defined();
}

at::Tensor value_or_undefined(const OptionalTensor &tensor) {
    return tensor.value_or(at::Tensor());
}

OptionalTensor optional(const at::Tensor &tensor) {
    return tensor.defined() ? OptionalTensor(tensor) : OptionalTensor();
}

bool requires_grad(const OptionalTensor &tensor) {
    return defined(tensor) && tensor->requires_grad();
}

bool is_transformed(const OptionalTensor &tensor) {
    return defined(tensor) && rp_ops::is_transformed(*tensor);
}

// `value` as if it had been computed from `source`: eager mode's second derivative with respect to
// the bias is there, and zero.
at::Tensor with_graph_of(const at::Tensor &source, const at::Tensor &value) {
    at::Tensor linked = source.clone();
    at::NoGradGuard no_grad;
    linked.copy_(value);
    return linked;
}

struct BnLeakyReluFunction : torch::autograd::Function<BnLeakyReluFunction> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &input,
                              const OptionalTensor &weight, const OptionalTensor &bias,
                              const OptionalTensor &running_mean, const OptionalTensor &running_var,
                              bool training, double momentum, double eps, double negative_slope) {
        at::AutoDispatchBelowADInplaceOrView below_autograd;
        const auto [output, mean, invstd, kept_bias] =
            dispatch_forward(input, weight, bias, running_mean, running_var, training, momentum,
                             eps, negative_slope);
        const auto copy = [&](const OptionalTensor &statistic) {
            return !training && defined(statistic) ? statistic->clone() : at::Tensor();
        };
        context->save_for_backward(
            {input, value_or_undefined(weight), defined(bias) ? kept_bias : at::Tensor(),
             value_or_undefined(running_mean), value_or_undefined(running_var), mean, invstd,
             copy(running_mean), copy(running_var)});
        context->saved_data["bias"] = bias; // not a saved variable: those must not change
        context->saved_data["training"] = training;
        context->saved_data["eps"] = eps;
        context->saved_data["negative_slope"] = negative_slope;
        return output;
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        variable_list result(9); // one an argument of forward
        if (!grads[0].defined()) {
            return result;
        }
        const variable_list saved = context->get_saved_variables();
        // Edges are counted over the tensors that were given.
        size_t edge = 1;
        std::array<bool, 3> mask = {context->needs_input_grad(0), false, false};
        for (int k : {1, 2}) {
            if (saved[k].defined()) {
                mask[k] = context->needs_input_grad(edge++);
            }
        }
        OptionalTensor bias = optional(saved[2]);
        if (at::GradMode::is_enabled() && bias) {
            bias = with_graph_of(*context->saved_data["bias"].toOptional<at::Tensor>(), *bias);
        }
        const bool training = context->saved_data["training"].toBool();
        std::tie(result[0], result[1], result[2]) =
            dispatch_backward(grads[0], saved[0], optional(saved[1]), bias,
                              optional(saved[training ? 3 : 7]), optional(saved[training ? 4 : 8]),
                              saved[5], saved[6], training, context->saved_data["eps"].toDouble(),
                              context->saved_data["negative_slope"].toDouble(), mask);
        return result;
    }
};

at::Tensor bn_leaky_relu_autograd(const at::Tensor &input, const OptionalTensor &weight,
                                  const OptionalTensor &bias, const OptionalTensor &running_mean,
                                  const OptionalTensor &running_var, bool training, double momentum,
                                  double eps, double negative_slope) {
    const bool empty = TORCH_GUARD_OR_FALSE(input.sym_numel().sym_eq(0));
    const bool cudnn = allow_cudnn() && input.is_cuda() && input.dim() > 2;
    if (empty || cudnn || is_transformed(input) || is_transformed(weight) || is_transformed(bias)) {
        return composed_pair(input, weight, bias, running_mean, running_var, training, momentum,
                             eps, negative_slope);
    }
    if (at::GradMode::is_enabled() &&
        (input.requires_grad() || requires_grad(weight) || requires_grad(bias))) {
        return BnLeakyReluFunction::apply(input, weight, bias, running_mean, running_var, training,
                                          momentum, eps, negative_slope);
    }
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::bn_leaky_relu", "")
                               .typed<decltype(bn_leaky_relu_autograd)>();
    return op.call(input, weight, bias, running_mean, running_var, training, momentum, eps,
                   negative_slope);
}

BackwardResult backward_autograd(const at::Tensor &grad_output, const at::Tensor &input,
                                 const OptionalTensor &weight, const OptionalTensor &bias,
                                 const OptionalTensor &running_mean,
                                 const OptionalTensor &running_var, const at::Tensor &mean,
                                 const at::Tensor &invstd, bool training, double eps,
                                 double negative_slope, std::array<bool, 3> grad_mask) {
    if (at::GradMode::is_enabled() &&
        (grad_output.requires_grad() || input.requires_grad() || requires_grad(weight))) {
        return composed_backward(grad_output, input, weight, bias, running_mean, running_var,
                                 training, eps, negative_slope, grad_mask);
    }
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return dispatch_backward(grad_output, input, weight, bias, running_mean, running_var, mean,
                             invstd, training, eps, negative_slope, grad_mask);
}

} // namespace

TORCH_LIBRARY_IMPL(rp, Autograd, m) {
    m.impl("bn_leaky_relu", &bn_leaky_relu_autograd);
    m.impl("bn_leaky_relu_forward", torch::autograd::autogradNotImplementedFallback());
    m.impl("bn_leaky_relu_backward", &backward_autograd);
}

TORCH_LIBRARY_IMPL(rp, FuncTorchBatched, m) {
    m.impl("bn_leaky_relu", &composed_pair);
}

} // namespace rp_ops
