// Copies from global to shared memory without a register in between, by the thread that will read
// them: wait_copies, and no barrier, makes them visible to it.
#pragma once

#include <cstdint>

namespace rp_kernels {

// 8 or 16 bytes.
template <typename Word>
__device__ __forceinline__ void copy_async(Word *shared, const void *global) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    if constexpr (sizeof(Word) == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(address), "l"(global)
                     : "memory");
    }
}

// Ends a group of copies, which may be empty.
__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until all groups but the newest PENDING have arrived.
template <int PENDING> __device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

} // namespace rp_kernels
