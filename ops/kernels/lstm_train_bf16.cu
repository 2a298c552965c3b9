#include "lstm_train_kernel.cuh"
#include "lstm_train_kernels.h"

const void *rp_lstm::lstm_train_kernel_bf16(int hidden, int layers) {
    return kernel_of<Bf16>(hidden, layers);
}
