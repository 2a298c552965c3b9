// The operators of librp_ops.so that the libtorch configurations call, through the dispatcher.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

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

} // namespace rp
