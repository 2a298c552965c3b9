// The CPU kernels for AVX2 and FMA; compiled with those flags on x86-64.
#if defined(__AVX2__) && defined(__FMA__)
#include "kernels/lstm_cpu_isa_impl.h"

const rp::LstmCpuKernels *rp::lstm_cpu_kernels_avx2() {
    static constexpr LstmCpuKernels kernels = kernels_named("avx2");
    return &kernels;
}
#else
#include "kernels/lstm_cpu_kernels.h"

const rp::LstmCpuKernels *rp::lstm_cpu_kernels_avx2() {
    return nullptr;
}
#endif
