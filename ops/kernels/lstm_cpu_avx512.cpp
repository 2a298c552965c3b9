// The CPU kernels for AVX-512 (F, BW, DQ, VL); compiled with those flags on x86-64.
#if defined(__AVX512F__)
#include "kernels/lstm_cpu_isa_impl.h"

const rp::LstmCpuKernels *rp::lstm_cpu_kernels_avx512() {
    static constexpr LstmCpuKernels kernels = kernels_named("avx512");
    return &kernels;
}
#else
#include "kernels/lstm_cpu_kernels.h"

const rp::LstmCpuKernels *rp::lstm_cpu_kernels_avx512() {
    return nullptr;
}
#endif
