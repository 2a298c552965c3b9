// CUDA: the fused kernels where their order of summation is known to be eager mode's, PyTorch's own
// operators everywhere else.
//
// Policy: fuses_forward and fuses_backward answer "no" to anything unusual, wrong arguments
// included, so that eager mode's own operators compute it, or refuse it in their own words.
#include "bn_leaky_relu_composed.h"
#include "bn_leaky_relu_fused.h"
#include "checks.h"
#include "ops/kernels/bn_leaky_relu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

namespace rp_ops {
namespace {

using rp_kernels::BnLeakyReluShape;
using rp_kernels::DataType;
using rp_kernels::Order;

bool given(const OptionalTensor &tensor) {
    return tensor.has_value() && tensor->defined();
}

bool has_data_type(at::ScalarType type) {
    return type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
}

DataType data_type(at::ScalarType type) {
    return type == at::kHalf       ? DataType::FLOAT16
           : type == at::kBFloat16 ? DataType::BFLOAT16
                                   : DataType::FLOAT32;
}

// Eager mode's choice for the forward (batch_norm_choose_impl in Normalization.cu).
std::optional<Order> order_in_memory(const at::Tensor &input) {
    if (input.is_contiguous()) {
        return input.stride(1) == 1 ? Order::ROWS : Order::PLANES;
    }
    if (input.is_contiguous(at::MemoryFormat::ChannelsLast)) {
        return Order::ROWS;
    }
    return std::nullopt;
}

// Eager mode's choice for the backward (batch_norm_use_channels_last_kernels).
Order order_of_sums(const at::Tensor &input) {
    const bool rows = input.is_contiguous(at::MemoryFormat::ChannelsLast) ||
                      input.is_contiguous(at::MemoryFormat::ChannelsLast3d) ||
                      (input.is_contiguous() && input.stride(1) == 1);
    return rows ? Order::ROWS : Order::PLANES;
}

// Type of the parameters that are given; nothing when they are no plain vectors of one type.
std::optional<at::ScalarType>
parameter_type(const at::Tensor &input, std::initializer_list<const OptionalTensor *> tensors) {
    std::optional<at::ScalarType> type;
    for (const OptionalTensor *tensor : tensors) {
        if (!given(*tensor)) {
            continue;
        }
        const at::Tensor &t = **tensor;
        const bool usable =
            t.device() == input.device() && t.dim() == 1 && t.size(0) == input.size(1) &&
            t.is_contiguous() &&
            (t.scalar_type() == at::kFloat || t.scalar_type() == input.scalar_type()) &&
            t.scalar_type() == type.value_or(t.scalar_type());
        if (!usable) {
            return std::nullopt;
        }
        type = t.scalar_type();
    }
    return type.value_or(at::kFloat);
}

BnLeakyReluShape kernel_shape(const at::Tensor &input, at::ScalarType parameters) {
    const int64_t images = input.size(0);
    const int64_t channels = input.size(1);
    return {data_type(input.scalar_type()), data_type(parameters),
            *order_in_memory(input),        static_cast<int>(images),
            static_cast<int>(channels),     static_cast<int>(input.numel() / (images * channels))};
}

const void *pointer(const OptionalTensor &tensor) {
    return given(tensor) ? tensor->const_data_ptr() : nullptr;
}

void *mutable_pointer(const OptionalTensor &tensor) {
    return given(tensor) ? tensor->mutable_data_ptr() : nullptr;
}

void *mutable_pointer(const at::Tensor &tensor) {
    return tensor.defined() ? tensor.mutable_data_ptr() : nullptr;
}

at::Tensor workspace_for(const BnLeakyReluShape &shape, const at::Tensor &input) {
    const auto bytes = static_cast<int64_t>(rp_kernels::bn_leaky_relu_workspace(shape));
    return at::empty({bytes}, input.options().dtype(at::kByte));
}

// Without `keep` the copy of the bias is undefined.
ForwardResult run_forward(const at::Tensor &input, const OptionalTensor &weight,
                          const OptionalTensor &bias, const OptionalTensor &running_mean,
                          const OptionalTensor &running_var, bool training, double momentum,
                          double eps, double negative_slope, bool keep) {
    const c10::cuda::CUDAGuard guard(input.device());
    check_values_per_channel(input, training);
    if (!fuses_forward(input, weight, bias, running_mean, running_var, training)) {
        return composed_forward(input, weight, bias, running_mean, running_var, training, momentum,
                                eps, negative_slope);
    }
    const auto type = parameter_type(input, {&weight, &bias, &running_mean, &running_var});
    rp_kernels::BnLeakyReluForward params = {};
    params.shape = kernel_shape(input, *type);
    const int64_t statistics = training ? input.size(1) : 0;
    const auto options = input.options().dtype(at::kFloat);
    const at::Tensor output = at::empty_like(input);
    const at::Tensor mean = at::empty({statistics}, options);
    const at::Tensor invstd = at::empty({statistics}, options);
    at::Tensor workspace, kept_bias;
    if (keep) {
        // In evaluation no kernel writes channels.
        kept_bias = !given(bias) ? at::empty({0}, input.options())
                    : training   ? at::empty_like(*bias)
                                 : bias->clone();
    }
    if (training) {
        workspace = workspace_for(params.shape, input);
        params.kept_bias = keep && given(bias) ? kept_bias.mutable_data_ptr() : nullptr;
        params.mean = mean.mutable_data_ptr<float>();
        params.invstd = invstd.mutable_data_ptr<float>();
        params.workspace = workspace.mutable_data_ptr();
    }
    params.input = input.const_data_ptr();
    params.output = output.mutable_data_ptr();
    params.weight = pointer(weight);
    params.bias = pointer(bias);
    params.running_mean = mutable_pointer(running_mean);
    params.running_var = mutable_pointer(running_var);
    params.training = training;
    params.momentum = static_cast<float>(momentum);
    params.eps = static_cast<float>(eps);
    params.negative_slope = static_cast<float>(negative_slope);
    C10_CUDA_CHECK(rp_kernels::launch_bn_leaky_relu_forward(
        params, c10::cuda::getCurrentCUDAStream(input.device().index())));
    return {output, mean, invstd, kept_bias};
}

ForwardResult forward_cuda(const at::Tensor &input, const OptionalTensor &weight,
                           const OptionalTensor &bias, const OptionalTensor &running_mean,
                           const OptionalTensor &running_var, bool training, double momentum,
                           double eps, double negative_slope) {
    return run_forward(input, weight, bias, running_mean, running_var, training, momentum, eps,
                       negative_slope, true);
}

at::Tensor output_cuda(const at::Tensor &input, const OptionalTensor &weight,
                       const OptionalTensor &bias, const OptionalTensor &running_mean,
                       const OptionalTensor &running_var, bool training, double momentum,
                       double eps, double negative_slope) {
    return std::get<0>(run_forward(input, weight, bias, running_mean, running_var, training,
                                   momentum, eps, negative_slope, false));
}

BackwardResult backward_cuda(const at::Tensor &grad_output, const at::Tensor &input,
                             const OptionalTensor &weight, const OptionalTensor &bias,
                             const OptionalTensor &running_mean, const OptionalTensor &running_var,
                             const at::Tensor &mean, const at::Tensor &invstd, bool training,
                             double eps, double negative_slope, std::array<bool, 3> grad_mask) {
    const c10::cuda::CUDAGuard guard(input.device());
    if (grad_output.scalar_type() != input.scalar_type() ||
        !fuses_backward(input, weight, bias, running_mean, running_var, training, grad_mask)) {
        return composed_backward(grad_output, input, weight, bias, running_mean, running_var,
                                 training, eps, negative_slope, grad_mask);
    }
    const auto type = parameter_type(input, {&weight, &bias, &running_mean, &running_var});
    // Eager mode writes dy in the layout of y, whatever the layout of the gradient that arrives.
    at::Tensor grad = grad_output;
    if (grad.strides() != input.strides()) {
        grad = at::empty_like(input).copy_(grad_output);
    }
    at::Tensor grad_input, grad_weight, grad_bias;
    if (grad_mask[0]) {
        grad_input = at::empty_like(input);
    }
    if (grad_mask[1]) {
        grad_weight = at::empty_like(*weight);
    }
    if (grad_mask[2]) {
        grad_bias = at::empty_like(*bias);
    }
    rp_kernels::BnLeakyReluBackward params = {};
    params.shape = kernel_shape(input, *type);
    params.sum_order = order_of_sums(input);
    const at::Tensor workspace = workspace_for(params.shape, input);
    params.grad_output = grad.const_data_ptr();
    params.input = input.const_data_ptr();
    params.weight = pointer(weight);
    params.bias = pointer(bias);
    if (training) {
        params.mean = mean.const_data_ptr<float>();
        params.invstd = invstd.const_data_ptr<float>();
    } else {
        params.running_mean = pointer(running_mean);
        params.running_var = pointer(running_var);
    }
    params.grad_input = mutable_pointer(grad_input);
    params.grad_weight = mutable_pointer(grad_weight);
    params.grad_bias = mutable_pointer(grad_bias);
    params.workspace = workspace.mutable_data_ptr();
    params.training = training;
    params.eps = static_cast<float>(eps);
    params.negative_slope = static_cast<float>(negative_slope);
    C10_CUDA_CHECK(rp_kernels::launch_bn_leaky_relu_backward(
        params, c10::cuda::getCurrentCUDAStream(input.device().index())));
    return {grad_input, grad_weight, grad_bias};
}

} // namespace

bool fuses_forward(const at::Tensor &input, const OptionalTensor &weight,
                   const OptionalTensor &bias, const OptionalTensor &running_mean,
                   const OptionalTensor &running_var, bool training) {
    constexpr int64_t INDEX_LIMIT = int64_t(1) << 31; // beyond it eager mode takes another path
    constexpr int64_t MOST_CHANNELS = 65535 * 8;      // rows: 8 of them a block, along the grid's y
    return input.is_cuda() && has_data_type(input.scalar_type()) && input.dim() >= 2 &&
           input.numel() > 0 && input.numel() < INDEX_LIMIT && input.size(1) <= MOST_CHANNELS &&
           order_in_memory(input) && given(weight) == given(bias) &&
           given(running_mean) == given(running_var) && (training || given(running_mean)) &&
           parameter_type(input, {&weight, &bias, &running_mean, &running_var});
}

bool fuses_backward(const at::Tensor &input, const OptionalTensor &weight,
                    const OptionalTensor &bias, const OptionalTensor &running_mean,
                    const OptionalTensor &running_var, bool training,
                    std::array<bool, 3> grad_mask) {
    return fuses_forward(input, weight, bias, running_mean, running_var, training) &&
           (grad_mask[0] || order_of_sums(input) == Order::ROWS);
}

TORCH_LIBRARY_IMPL(rp, CUDA, m) {
    m.impl("bn_leaky_relu", &output_cuda);
    m.impl("bn_leaky_relu_forward", &forward_cuda);
    m.impl("bn_leaky_relu_backward", &backward_cuda);
}

} // namespace rp_ops
