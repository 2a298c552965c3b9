// Reading and writing one channel's parameters and results.
#pragma once

#include "bn_leaky_relu_arithmetic.cuh"

namespace rp_kernels {

// Parameters have the type of the data, or are float32: what the compiler needs to know, to leave
// out the code of all other types.
template <typename scalar_t, typename Params>
__device__ __forceinline__ void assume_parameter_type(const Params &p) {
    const DataType type = p.shape.parameter_type;
    __builtin_assume(type == DataType::FLOAT32 || type == Scalar<scalar_t>::TYPE);
}

template <typename Params>
__device__ __forceinline__ Channel channel_in_training(const Params &p, int channel) {
    const DataType type = p.shape.parameter_type;
    return {p.mean[channel], p.invstd[channel], load_parameter_or(1.0f, p.weight, type, channel),
            load_parameter_or(0.0f, p.bias, type, channel)};
}

template <typename Params>
__device__ __forceinline__ Channel channel_in_evaluation(const Params &p, int channel) {
    const DataType type = p.shape.parameter_type;
    return {load_parameter(p.running_mean, type, channel),
            inverse_deviation(load_parameter(p.running_var, type, channel), p.eps),
            load_parameter_or(1.0f, p.weight, type, channel),
            load_parameter_or(0.0f, p.bias, type, channel)};
}

template <typename Params>
__device__ __forceinline__ Channel channel_of(const Params &p, int channel) {
    return p.training ? channel_in_training(p, channel) : channel_in_evaluation(p, channel);
}

// The PLANES reduction of eager mode takes 1 / sqrt in evaluation, not rsqrt.
__device__ __forceinline__ float planes_invstd(const BnLeakyReluBackward &p, int channel) {
    if (p.training) {
        return p.invstd[channel];
    }
    const float variance = load_parameter(p.running_var, p.shape.parameter_type, channel);
    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(variance, p.eps)));
}

// What one thread a channel asks for early, because its latency would show at the end.
struct ChannelBefore {
    float weight, bias, running_mean, running_var;
};

__device__ __forceinline__ ChannelBefore channel_before(const BnLeakyReluForward &p, int channel) {
    const DataType type = p.shape.parameter_type;
    return {load_parameter_or(1.0f, p.weight, type, channel),
            load_parameter_or(0.0f, p.bias, type, channel),
            load_parameter_or(0.0f, p.running_mean, type, channel),
            load_parameter_or(0.0f, p.running_var, type, channel)};
}

// Writes the statistics of a channel, and the copy of its bias.
__device__ __forceinline__ void finish_statistics(const BnLeakyReluForward &p, int channel,
                                                  const ChannelBefore &before, float mean,
                                                  float variance, float bessel) {
    p.mean[channel] = mean;
    p.invstd[channel] = inverse_deviation(variance, p.eps);
    const DataType type = p.shape.parameter_type;
    if (p.kept_bias) {
        store_parameter(p.kept_bias, type, channel, before.bias);
    }
    if (p.running_mean) {
        update_running(p.running_mean, type, channel, before.running_mean, mean, p.momentum);
        update_running(p.running_var, type, channel, before.running_var,
                       __fmul_rn(variance, bessel), p.momentum);
    }
}

// grad_bias = sum of dy; grad_weight = rn(sum of dy * (x - mean) * invstd).
__device__ __forceinline__ void finish_parameters(const BnLeakyReluBackward &p, int channel,
                                                  float sum, float dot, float invstd) {
    if (p.grad_weight) {
        store_parameter(p.grad_weight, p.shape.parameter_type, channel, __fmul_rn(dot, invstd));
    }
    if (p.grad_bias) {
        store_parameter(p.grad_bias, p.shape.parameter_type, channel, sum);
    }
}

// n / (n - 1), in double and then rounded once, as eager mode's host code has it.
__host__ inline float bessel_correction(int64_t values) {
    return static_cast<float>(static_cast<double>(values) / static_cast<double>(values - 1));
}

// 1 / n of the ROWS formula: divided in double, rounded once.
__host__ inline float rows_reciprocal(int64_t values) {
    return static_cast<float>(1.0 / static_cast<double>(values));
}

} // namespace rp_kernels
