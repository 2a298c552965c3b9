// What the CPU, Meta and CUDA implementations of rp::gather_windows share.
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace rp_ops {

// The arguments of one call, checked; x [T, rows, F] and y [rows] are allocated, not filled.
std::tuple<at::Tensor, at::Tensor> gather_windows_outputs(const at::Tensor &features,
                                                          const at::Tensor &targets,
                                                          const at::Tensor &window_ends,
                                                          const at::Tensor &step, int64_t batch,
                                                          int64_t rows, int64_t time_steps);

} // namespace rp_ops
