#include "lstm_train_kernel.cuh"
#include "lstm_train_kernels.h"

const void *rp_lstm::lstm_train_kernel_tf32(int hidden, int layers) {
    return kernel_of<Tf32>(hidden, layers);
}
