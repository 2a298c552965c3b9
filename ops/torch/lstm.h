// What rp::lstm chooses among.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <tuple>

namespace rp_ops {

// See lstm_cpu.cpp: all layers, from zero states.
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_infer(const at::Tensor &input,
                                                          at::TensorList params, bool batch_first);

// Whether lstm_infer takes this shape.
bool lstm_cpu_fits(int64_t time_steps, int64_t features, int64_t hidden, int64_t layers);

} // namespace rp_ops
