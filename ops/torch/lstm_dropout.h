// What the CPU, Meta and CUDA implementations of rp::lstm_dropout share.
#pragma once

#include <ATen/core/Tensor.h>

namespace rp_ops {

void check_lstm_dropout(const at::Tensor &input, const at::Tensor &step, int64_t layer, double p);

} // namespace rp_ops
