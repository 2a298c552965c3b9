// Helpers of the launchers: from a run-time data type to a template, and how many blocks fit.
#pragma once

#include "bn_leaky_relu.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <atomic>

namespace rp_kernels {

// function(T()) for the C++ type of `type`, then what its launch reported.
template <typename Function> cudaError_t for_type(DataType type, const Function &function) {
    switch (type) {
    case DataType::FLOAT16:
        function(__half());
        break;
    case DataType::BFLOAT16:
        function(__nv_bfloat16());
        break;
    default:
        function(float());
        break;
    }
    return cudaGetLastError();
}

inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

inline bool is_aligned(const void *pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % sizeof(uint4) == 0;
}

// How many blocks of one kernel the current device holds at once, asked once a device. One object
// a kernel and a size of shared memory, in static storage; the answer never changes.
class ResidentBlocks {
  public:
    template <typename Kernel>
    cudaError_t ask(int *blocks, Kernel kernel, int threads, size_t shared_bytes) {
        int device = 0;
        cudaError_t error = cudaGetDevice(&device);
        if (error != cudaSuccess) {
            return error;
        }
        const bool remembered = device < MAXIMUM_DEVICES;
        if (remembered && (*blocks = known_[device].load(std::memory_order_relaxed)) > 0) {
            return cudaSuccess;
        }
        int multiprocessors = 0, each = 0;
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes));
        if (error != cudaSuccess) {
            cudaGetLastError(); // a smaller GPU: not an error of the call that follows
            return cudaErrorNotSupported;
        }
        error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
        if (error == cudaSuccess) {
            error =
                cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes);
        }
        *blocks = multiprocessors * each;
        if (error == cudaSuccess && remembered) {
            known_[device].store(*blocks, std::memory_order_relaxed);
        }
        return error;
    }

  private:
    static constexpr int MAXIMUM_DEVICES = 64;
    std::atomic<int> known_[MAXIMUM_DEVICES] = {};
};

} // namespace rp_kernels
