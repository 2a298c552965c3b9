#include "bn_leaky_relu_composed.h"

#include "checks.h"

#include <ATen/AccumulateType.h>
#include <ATen/Context.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/leaky_relu_backward.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/native_batch_norm_backward.h>
#include <ATen/ops/zeros.h>

#include <atomic>

namespace rp_ops {
namespace {

std::atomic<bool> cudnn_allowed{false};

// In training the running statistics must not move a second time; but their type counts.
OptionalTensor scratch_copy(const OptionalTensor &statistic, bool training) {
    const bool given = statistic.has_value() && statistic->defined();
    return training && given ? OptionalTensor(statistic->detach().clone()) : statistic;
}

at::Tensor copy_of(const OptionalTensor &bias, const at::Tensor &input) {
    const bool given = bias.has_value() && bias->defined();
    return given ? bias->clone() : at::empty({0}, input.options());
}

// As compilers are told (bn_leaky_relu_meta.cpp): on GPUs PyTorch's result may be laid out
// otherwise.
at::Tensor in_told_layout(const at::Tensor &result, const at::Tensor &input) {
    return result.contiguous(input.suggest_memory_format());
}

} // namespace

bool set_allow_cudnn(bool allow) {
    return cudnn_allowed.exchange(allow);
}

bool allow_cudnn() {
    return cudnn_allowed.load();
}

ForwardResult composed_forward(const at::Tensor &input, const OptionalTensor &weight,
                               const OptionalTensor &bias, const OptionalTensor &running_mean,
                               const OptionalTensor &running_var, bool training, double momentum,
                               double eps, double negative_slope) {
    check_arguments(input, weight, bias, running_mean, running_var, training);
    const auto statistics = input.options().dtype(at::toOpMathType(input.scalar_type()));
    if (input.numel() == 0) {
        const int64_t channels = training ? input.size(1) : 0;
        return {input.clone(input.suggest_memory_format()), at::zeros({channels}, statistics),
                at::zeros({channels}, statistics), copy_of(bias, input)};
    }
    // Not at::batch_norm: it gives 3-D and more to cuDNN, whatever its arguments say.
    auto [y, mean, invstd] = at::native_batch_norm(input, weight, bias, running_mean, running_var,
                                                   training, momentum, eps);
    if (training) {
        mean = mean.to(statistics.dtype());
        invstd = invstd.to(statistics.dtype());
    } else {
        mean = at::empty({0}, statistics);
        invstd = at::empty({0}, statistics);
    }
    return {in_told_layout(at::leaky_relu(y, negative_slope), input), mean, invstd,
            copy_of(bias, input)};
}

BackwardResult composed_backward(const at::Tensor &grad_output, const at::Tensor &input,
                                 const OptionalTensor &weight, const OptionalTensor &bias,
                                 const OptionalTensor &running_mean,
                                 const OptionalTensor &running_var, bool training, double eps,
                                 double negative_slope, std::array<bool, 3> grad_mask) {
    const OptionalTensor mean_in = scratch_copy(running_mean, training);
    const OptionalTensor var_in = scratch_copy(running_var, training);
    const auto [y, mean, invstd] =
        at::native_batch_norm(input, weight, bias, mean_in, var_in, training, 0.0, eps);
    const at::Tensor grad_y =
        at::leaky_relu_backward(grad_output, y, negative_slope, /*self_is_result=*/false);
    BackwardResult grads = at::native_batch_norm_backward(grad_y, input, weight, mean_in, var_in,
                                                          mean, invstd, training, eps, grad_mask);
    // Some of its paths return gradients that were not asked for.
    std::apply(
        [&, k = 0](auto &...grad) mutable { ((grad = grad_mask[k++] ? grad : at::Tensor()), ...); },
        grads);
    if (grad_mask[0]) {
        std::get<0>(grads) = in_told_layout(std::get<0>(grads), input);
    }
    return grads;
}

at::Tensor composed_pair(const at::Tensor &input, const OptionalTensor &weight,
                         const OptionalTensor &bias, const OptionalTensor &running_mean,
                         const OptionalTensor &running_var, bool training, double momentum,
                         double eps, double negative_slope) {
    const bool empty = TORCH_GUARD_OR_FALSE(input.sym_numel().sym_eq(0));
    if (empty || allow_cudnn()) {
        return at::leaky_relu(at::batch_norm(input, weight, bias, running_mean, running_var,
                                             training, momentum, eps, allow_cudnn()),
                              negative_slope);
    }
    check_arguments(input, weight, bias, running_mean, running_var, training);
    return at::leaky_relu(std::get<0>(at::native_batch_norm(input, weight, bias, running_mean,
                                                            running_var, training, momentum, eps)),
                          negative_slope);
}

} // namespace rp_ops
