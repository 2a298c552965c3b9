#include "lstm_train_kernel.cuh"
#include "lstm_train_kernels.h"

const void *rp_lstm::lstm_train_kernel_fp16(int hidden, int layers) {
    if (hidden == 64) {
        return layers == 1 ? (const void *)lstm_train_kernel<64, Fp16, 1>
                           : (const void *)lstm_train_kernel<64, Fp16, 2>;
    }
    if (hidden == 32) {
        return layers == 1 ? (const void *)lstm_train_kernel<32, Fp16, 1>
                           : (const void *)lstm_train_kernel<32, Fp16, 2>;
    }
    return nullptr;
}
