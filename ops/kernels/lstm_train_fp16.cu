#include "lstm_train_kernel.cuh"
#include "lstm_train_kernels.h"

const void *rp_lstm::lstm_train_kernel_fp16(int hidden, int layers, int abreast) {
    return abreast == 2 ? kernel_of<Fp16, 2>(hidden, layers) : kernel_of<Fp16, 1>(hidden, layers);
}
