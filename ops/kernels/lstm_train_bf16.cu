#include "lstm_train_kernel.cuh"
#include "lstm_train_kernels.h"

const void *rp_lstm::lstm_train_kernel_bf16(int hidden, int layers, int abreast) {
    return abreast == 2 ? kernel_of<Bf16, 2>(hidden, layers) : kernel_of<Bf16, 1>(hidden, layers);
}
