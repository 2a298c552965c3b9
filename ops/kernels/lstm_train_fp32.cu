#include "lstm_train_kernel.cuh"
#include "lstm_train_kernels.h"

const void *rp_lstm::lstm_train_kernel_fp32(int hidden, int layers) {
    return kernel_of<Fp32>(hidden, layers);
}
