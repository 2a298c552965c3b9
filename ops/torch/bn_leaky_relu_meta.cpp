// Meta: shapes, types and strides of the results, for torch.compile, torch.export and fake tensors.
// As in eager mode, what is laid out neither way is answered contiguous.
#include "bn_leaky_relu_composed.h"
#include "checks.h"

#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

namespace rp_ops {
namespace {

ForwardResult forward_meta(const at::Tensor &input, const OptionalTensor &,
                           const OptionalTensor &bias, const OptionalTensor &,
                           const OptionalTensor &, bool training, double, double, double) {
    check_values_per_channel(input, training);
    const c10::SymInt channels = training ? input.sym_size(1) : c10::SymInt(0);
    const auto statistics = input.options().dtype(at::toOpMathType(input.scalar_type()));
    return {at::empty_like(input, input.suggest_memory_format()),
            at::empty_symint({channels}, statistics), at::empty_symint({channels}, statistics),
            bias && bias->defined() ? at::empty_like(*bias) : at::empty({0}, input.options())};
}

BackwardResult backward_meta(const at::Tensor &, const at::Tensor &input,
                             const OptionalTensor &weight, const OptionalTensor &bias,
                             const OptionalTensor &, const OptionalTensor &, const at::Tensor &,
                             const at::Tensor &, bool, double, double,
                             std::array<bool, 3> grad_mask) {
    at::Tensor grad_input, grad_weight, grad_bias;
    if (grad_mask[0]) {
        grad_input = at::empty_like(input, input.suggest_memory_format());
    }
    if (grad_mask[1]) {
        grad_weight = at::empty_like(*weight);
    }
    if (grad_mask[2]) {
        grad_bias = at::empty_like(*bias);
    }
    return {grad_input, grad_weight, grad_bias};
}

} // namespace

TORCH_LIBRARY_IMPL(rp, Meta, m) {
    m.impl("bn_leaky_relu_forward", &forward_meta);
    m.impl("bn_leaky_relu_backward", &backward_meta);
}

} // namespace rp_ops
