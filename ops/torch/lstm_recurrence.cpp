// rp::lstm_recurrence: schema, checks, Meta and Autograd.
//
// Policy: beside its output a layer keeps its gates and cells for backward. Sums over time (the
// gradient of weight_hh) are one product outside the kernels, as the input's projection is, so that
// they follow torch's own settings. A second derivative is left to torch's operators, and as in
// torch there is one on the CPU alone: there the inputs are kept as well.
#include "lstm_recurrence.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <iterator>

namespace rp_ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

LstmForwardResult forward(const at::Tensor &projected, const at::Tensor &weight,
                          const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                          const OptionalTensor &h_0, const OptionalTensor &c_0, bool save) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::lstm_recurrence_forward", "")
                               .typed<decltype(forward)>();
    return op.call(projected, weight, bias_ih, bias_hh, h_0, c_0, save);
}

LstmBackwardResult backward(const OptionalTensor &grad_output, const OptionalTensor &grad_h_n,
                            const OptionalTensor &grad_c_n, const at::Tensor &saved,
                            const at::Tensor &weight, c10::SymInt batch) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::lstm_recurrence_backward", "")
                               .typed<decltype(backward)>();
    return op.call(grad_output, grad_h_n, grad_c_n, saved, weight, std::move(batch));
}

void check_sizes(const char *name, const at::Tensor &tensor, c10::SymIntArrayRef sizes,
                 const at::Tensor &like) {
    TORCH_CHECK(tensor.sym_sizes() == sizes, "rp::lstm_recurrence: ", name, " must be ", sizes,
                ", got ", tensor.sym_sizes());
    TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.device() == like.device(),
                "rp::lstm_recurrence: ", name, " must be float32 on ", like.device(), ", got ",
                tensor.scalar_type(), " on ", tensor.device());
}

} // namespace

LstmForwardResult make_lstm_forward(const at::Tensor &projected, const at::Tensor &weight,
                                    const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                                    const OptionalTensor &h_0, const OptionalTensor &c_0,
                                    bool save) {
    TORCH_CHECK(projected.dim() == 3 && weight.dim() == 2,
                "rp::lstm_recurrence: projected must be [T, B, 4H] and weight [4H, H], got ",
                projected.sym_sizes(), " and ", weight.sym_sizes());
    const c10::SymInt T = projected.sym_size(0), B = projected.sym_size(1), H = weight.sym_size(1);
    check_sizes("projected", projected, {T, B, 4 * H}, projected);
    check_sizes("weight", weight, {4 * H, H}, projected);
    check_sizes("bias_ih", bias_ih, {4 * H}, projected);
    check_sizes("bias_hh", bias_hh, {4 * H}, projected);
    TORCH_CHECK(T >= 1 && B >= 1, "rp::lstm_recurrence: projected has no elements");
    for (const auto &[name, state] : {std::pair("h_0", h_0), std::pair("c_0", c_0)}) {
        if (state.has_value()) {
            check_sizes(name, *state, {B, H}, projected);
        }
    }
    const auto make = [&projected](c10::SymIntArrayRef sizes) {
        return at::empty_symint(sizes, projected.options());
    };
    return {make({T, B, H}), make({B, H}), make({B, H}),
            save ? make({T, (B + 7) / 8 * 8, 5 * H}) : make({0})};
}

LstmBackwardResult make_lstm_backward(const OptionalTensor &grad_output,
                                      const OptionalTensor &grad_h_n,
                                      const OptionalTensor &grad_c_n, const at::Tensor &saved,
                                      const at::Tensor &weight, c10::SymInt B) {
    TORCH_CHECK(saved.dim() == 3 && weight.dim() == 2 && B >= 1,
                "rp::lstm_recurrence_backward: saved and weight must be forward's");
    const c10::SymInt T = saved.sym_size(0), H = weight.sym_size(1);
    check_sizes("saved", saved, {T, (B + 7) / 8 * 8, 5 * H}, saved);
    check_sizes("weight", weight, {4 * H, H}, saved);
    if (grad_output.has_value()) {
        check_sizes("grad_output", *grad_output, {T, B, H}, saved);
    }
    for (const auto &[name, state] :
         {std::pair("grad_h_n", grad_h_n), std::pair("grad_c_n", grad_c_n)}) {
        if (state.has_value()) {
            check_sizes(name, *state, {B, H}, saved);
        }
    }
    const auto make = [&saved](c10::SymIntArrayRef sizes) {
        return at::empty_symint(sizes, saved.options());
    };
    return {make({T, B, 4 * H}), make({4 * H}), make({B, H}), make({B, H})};
}

namespace {

using Lstm = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

Lstm without_saving(const at::Tensor &projected, const at::Tensor &weight,
                    const at::Tensor &bias_ih, const at::Tensor &bias_hh, const OptionalTensor &h_0,
                    const OptionalTensor &c_0) {
    auto [output, h_n, c_n, saved] =
        forward(projected, weight, bias_ih, bias_hh, h_0, c_0, /*save=*/false);
    return {output, h_n, c_n};
}

OptionalTensor optional(const at::Tensor &tensor) {
    return tensor.defined() ? OptionalTensor(tensor) : OptionalTensor();
}

// Sum over time of d(gates)(t)^T h(t-1): [4H, H].
at::Tensor weight_gradient(const at::Tensor &grad_projected, const at::Tensor &output,
                           const OptionalTensor &h_0) {
    const auto T = output.sym_size(0), B = output.sym_size(1), H = output.sym_size(2);
    const at::Tensor gates = grad_projected.view_symint({T * B, 4 * H}).t();
    const at::Tensor states = output.view_symint({T * B, H});
    const at::Tensor sum = at::mm(gates.slice_symint(1, B), states.slice_symint(0, 0, (T - 1) * B));
    return h_0.has_value() ? at::addmm(sum, gates.slice_symint(1, 0, B), *h_0) : sum;
}

// output, h_n, c_n by torch's operators, of lstm_recurrence's arguments.
variable_list compose(const variable_list &inputs) {
    const at::Tensor &projected = inputs[0], &weight = inputs[1];
    const auto state = [&](const at::Tensor &given) {
        return given.defined() ? given
                               : at::zeros({projected.size(1), weight.size(1)}, weight.options());
    };
    at::Tensor h = state(inputs[4]), c = state(inputs[5]);
    const at::Tensor bias = inputs[2] + inputs[3];
    variable_list outputs;
    for (int64_t t = 0; t < projected.size(0); ++t) {
        const variable_list gates = (projected[t] + bias + h.mm(weight.t())).chunk(4, 1);
        c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[2].tanh();
        h = gates[3].sigmoid() * c.tanh();
        outputs.push_back(h);
    }
    return {at::stack(outputs), h, c};
}

// Of the arguments, as functions that can be differentiated again. Of aliases: an argument may have
// been computed from another, and grad() would follow it there.
variable_list composed_gradients(const variable_list &arguments, const variable_list &grads) {
    variable_list inputs;
    for (const at::Tensor &argument : arguments) {
        inputs.push_back(argument.defined() ? argument.view_as(argument) : argument);
    }
    const variable_list results = compose(inputs);
    variable_list outputs, given, wanted;
    for (size_t k = 0; k < results.size(); ++k) {
        if (grads[k].defined()) {
            outputs.push_back(results[k]);
            given.push_back(grads[k]);
        }
    }
    const auto wants = [](const at::Tensor &t) { return t.defined() && t.requires_grad(); };
    std::copy_if(inputs.begin(), inputs.end(), std::back_inserter(wanted), wants);
    const variable_list found = torch::autograd::grad(outputs, wanted, given, /*retain_graph=*/true,
                                                      /*create_graph=*/true,
                                                      /*allow_unused=*/true);
    variable_list result(inputs.size());
    size_t next = 0;
    for (size_t k = 0; k < inputs.size(); ++k) {
        if (wants(inputs[k])) {
            result[k] = found[next++];
        }
    }
    return result;
}

struct LstmRecurrenceFunction : torch::autograd::Function<LstmRecurrenceFunction> {
    static variable_list forward(AutogradContext *context, const at::Tensor &projected,
                                 const at::Tensor &weight, const at::Tensor &bias_ih,
                                 const at::Tensor &bias_hh, const OptionalTensor &h_0,
                                 const OptionalTensor &c_0) {
        at::AutoDispatchBelowADInplaceOrView below_autograd;
        const auto [output, h_n, c_n, saved] =
            rp_ops::forward(projected, weight, bias_ih, bias_hh, h_0, c_0, /*save=*/true);
        variable_list kept = {output, saved, weight, h_0.value_or(at::Tensor())};
        if (projected.is_cpu()) {
            kept.insert(kept.end(), {projected, bias_ih, bias_hh, c_0.value_or(at::Tensor())});
        }
        context->save_for_backward(std::move(kept));
        context->saved_data["c_0"] = c_0.has_value();
        context->set_materialize_grads(false);
        return {output, h_n, c_n};
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        variable_list result(6); // one an argument of forward
        if (!grads[0].defined() && !grads[1].defined() && !grads[2].defined()) {
            return result;
        }
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &output = saved[0], &weight = saved[2], &h_0 = saved[3];
        if (at::GradMode::is_enabled() && saved.size() > 4) {
            return composed_gradients({saved[4], weight, saved[5], saved[6], h_0, saved[7]}, grads);
        }
        auto [grad_projected, grad_bias, grad_h_0, grad_c_0] =
            rp_ops::backward(optional(grads[0]), optional(grads[1]), optional(grads[2]), saved[1],
                             weight, output.sym_size(1));
        result[0] = grad_projected;
        result[1] = weight_gradient(grad_projected, output, optional(h_0));
        result[2] = grad_bias;
        result[3] = grad_bias.clone(); // a hook may change one of them in place
        result[4] = h_0.defined() ? grad_h_0 : at::Tensor();
        result[5] = context->saved_data["c_0"].toBool() ? grad_c_0 : at::Tensor();
        return result;
    }
};

Lstm lstm_recurrence_autograd(const at::Tensor &projected, const at::Tensor &weight,
                              const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                              const OptionalTensor &h_0, const OptionalTensor &c_0) {
    const auto wants = [](const OptionalTensor &t) { return t.has_value() && t->requires_grad(); };
    if (at::GradMode::is_enabled() && (wants(projected) || wants(weight) || wants(bias_ih) ||
                                       wants(bias_hh) || wants(h_0) || wants(c_0))) {
        const variable_list results =
            LstmRecurrenceFunction::apply(projected, weight, bias_ih, bias_hh, h_0, c_0);
        return {results[0], results[1], results[2]};
    }
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return without_saving(projected, weight, bias_ih, bias_hh, h_0, c_0);
}

} // namespace

Lstm lstm_recurrence(const at::Tensor &projected, const at::Tensor &weight,
                     const at::Tensor &bias_ih, const at::Tensor &bias_hh,
                     const OptionalTensor &h_0, const OptionalTensor &c_0) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::lstm_recurrence", "")
                               .typed<decltype(lstm_recurrence)>();
    return op.call(projected, weight, bias_ih, bias_hh, h_0, c_0);
}

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("lstm_recurrence(Tensor projected, Tensor weight, Tensor bias_ih, Tensor bias_hh, "
          "Tensor? h_0, Tensor? c_0) -> (Tensor, Tensor, Tensor)",
          {at::Tag::pt2_compliant_tag});
    m.def("lstm_recurrence_forward(Tensor projected, Tensor weight, Tensor bias_ih, "
          "Tensor bias_hh, Tensor? h_0, Tensor? c_0, bool save) -> "
          "(Tensor, Tensor, Tensor, Tensor)",
          {at::Tag::pt2_compliant_tag});
    m.def("lstm_recurrence_backward(Tensor? grad_output, Tensor? grad_h_n, Tensor? grad_c_n, "
          "Tensor saved, Tensor weight, SymInt batch) -> "
          "(Tensor, Tensor, Tensor, Tensor)",
          {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_IMPL(rp, CompositeExplicitAutograd, m) {
    m.impl("lstm_recurrence", &without_saving);
}
TORCH_LIBRARY_IMPL(rp, Meta, m) {
    m.impl("lstm_recurrence_forward", &make_lstm_forward);
    m.impl("lstm_recurrence_backward", &make_lstm_backward);
}
TORCH_LIBRARY_IMPL(rp, Autograd, m) {
    m.impl("lstm_recurrence", &lstm_recurrence_autograd);
    m.impl("lstm_recurrence_forward", torch::autograd::autogradNotImplementedFallback());
    m.impl("lstm_recurrence_backward", torch::autograd::autogradNotImplementedFallback());
}

} // namespace rp_ops
