// The operators of librp_ops.so that the libtorch configurations call, through the dispatcher.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <string>
#include <tuple>

namespace rp {

// x [T][rows][F] and y [rows] of optimiser step `step` (an int64 on the tensors' device).
inline std::tuple<at::Tensor, at::Tensor>
gather_windows(const at::Tensor &features, const at::Tensor &targets, const at::Tensor &window_ends,
               const at::Tensor &step, int64_t seed, int64_t batch, int64_t rows,
               int64_t time_steps) {
    using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &,
                                                         const at::Tensor &, const at::Tensor &,
                                                         int64_t, int64_t, int64_t, int64_t);
    static const auto handle =
        c10::Dispatcher::singleton().findSchemaOrThrow("rp::gather_windows", "").typed<Signature>();
    return handle.call(features, targets, window_ends, step, seed, batch, rows, time_steps);
}

// input [T][B][H] with dropout, the mask a function of (seed, step, row, layer, unit, time).
inline at::Tensor lstm_dropout(const at::Tensor &input, const at::Tensor &step, int64_t seed,
                               int64_t layer, double p) {
    using Signature = at::Tensor(const at::Tensor &, const at::Tensor &, int64_t, int64_t, double);
    static const auto handle =
        c10::Dispatcher::singleton().findSchemaOrThrow("rp::lstm_dropout", "").typed<Signature>();
    return handle.call(input, step, seed, layer, p);
}

// Trains M models in place for `steps` steps; see ops/torch/lstm_train.cpp.
inline void lstm_train(at::Tensor &parameters, at::Tensor &exp_avg, at::Tensor &exp_avg_sq,
                       at::Tensor &running_mean, at::Tensor &running_var, at::Tensor &losses,
                       at::Tensor &scale_state, const at::Tensor &features,
                       const at::Tensor &targets, const at::Tensor &window_ends,
                       const at::Tensor &window_ranges, const at::Tensor &seeds,
                       const at::Tensor &learning_rates, int64_t first_step, int64_t steps,
                       int64_t batch, int64_t time_steps, int64_t hidden, int64_t layers,
                       double dropout, double momentum, double norm_eps, double negative_slope,
                       double beta1, double beta2, double adam_eps, c10::string_view precision) {
    static const auto handle = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("rp::lstm_train_", "")
                                   .typed<decltype(lstm_train)>();
    handle.call(parameters, exp_avg, exp_avg_sq, running_mean, running_var, losses, scale_state,
                features, targets, window_ends, window_ranges, seeds, learning_rates, first_step,
                steps, batch, time_steps, hidden, layers, dropout, momentum, norm_eps,
                negative_slope, beta1, beta2, adam_eps, precision);
}

// Why rp::lstm_train_ can't train this shape; "" when it can.
inline std::string lstm_train_unsupported(int64_t features, int64_t time_steps, int64_t hidden,
                                          int64_t layers, int64_t batch,
                                          c10::string_view precision) {
    static const auto handle = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("rp::lstm_train_unsupported", "")
                                   .typed<decltype(lstm_train_unsupported)>();
    return handle.call(features, time_steps, hidden, layers, batch, precision);
}

} // namespace rp
