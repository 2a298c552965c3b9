// The instances of the kernel, a translation unit for an operand type so that they compile at once.
#pragma once

namespace rp_lstm {

// The kernel for H = hidden, `layers` and tiles of 8 * abreast rows, or NULL.
const void *lstm_train_kernel_fp16(int hidden, int layers, int abreast);
const void *lstm_train_kernel_bf16(int hidden, int layers, int abreast);
const void *lstm_train_kernel_tf32(int hidden, int layers, int abreast);
const void *lstm_train_kernel_fp32(int hidden, int layers, int abreast);

} // namespace rp_lstm
