// The CPU kernels for any machine: vectors of four, in the compiler's baseline.
#include "kernels/lstm_cpu_isa_impl.h"

const rp::LstmCpuKernels *rp::lstm_cpu_kernels_portable() {
    static constexpr LstmCpuKernels kernels = kernels_named("portable");
    return &kernels;
}
