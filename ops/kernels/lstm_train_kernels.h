// The instances of the kernel, one translation unit an operand type so that they compile at once.
#pragma once

namespace rp_lstm {

// The kernel for H = hidden and `layers`, or NULL.
const void *lstm_train_kernel_fp16(int hidden, int layers);
const void *lstm_train_kernel_bf16(int hidden, int layers);
const void *lstm_train_kernel_tf32(int hidden, int layers);
const void *lstm_train_kernel_fp32(int hidden, int layers);

} // namespace rp_lstm
