// As much of CUDA as the training kernel uses, for a C++ compiler: stands in the place of the
// toolkit's header. Device memory is the host's; see grid.h for the threads.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>

#include "grid.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(uint32_t x, uint32_t y) {
    return {x, y};
}
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

// ---- Threads ------------------------------------------------------------------------------------
using emulation::blockIdx;
using emulation::gridDim;
using emulation::threadIdx;

inline void __syncthreads() {
    emulation::Block &block = *emulation::thread->block;
    emulation::meet(block.meeting, block.threads);
}
inline void __syncwarp() {
    emulation::meet_warp();
}
template <class T> T __shfl_sync(unsigned, T value, int lane) {
    return emulation::exchange(value, [lane](const auto &given) { return given(lane); });
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return __shfl_sync(~0u, value, emulation::thread->lane() ^ mask);
}

// ---- Memory and arithmetic ----------------------------------------------------------------------
template <class T> T __ldg(const T *place) {
    return *place;
}
template <class T> T __ldcg(const T *place) {
    return *place;
}
template <class T> void __stcg(T *place, T value) {
    *place = value;
}
template <class T> void __stcs(T *place, T value) {
    *place = value;
}
inline uint32_t __float_as_uint(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
inline float __expf(float x) {
    return expf(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}

// ---- The host's side ----------------------------------------------------------------------------
using cudaError_t = int;
using cudaStream_t = struct CUstream_st *;
enum { cudaSuccess, cudaErrorInvalidValue, cudaErrorCooperativeLaunchTooLarge };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum { cudaLaunchAttributeClusterDimension, cudaLaunchAttributeCooperative };

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct cudaLaunchAttribute {
    int id;
    struct {
        dim3 clusterDim;
        int cooperative;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    int numAttrs;
};

inline cudaError_t cudaMemsetAsync(void *place, int value, size_t bytes, cudaStream_t) {
    memset(place, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemset2DAsync(void *place, size_t pitch, int value, size_t width,
                                     size_t height, cudaStream_t) {
    for (size_t row = 0; row < height; ++row) {
        memset(static_cast<uint8_t *>(place) + row * pitch, value, width);
    }
    return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void *, int, int) {
    return cudaSuccess;
}
// The program that launches kernels defines these: it knows their arguments.
cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *kernel,
                                           const cudaLaunchConfig_t *config);
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel,
                                void **arguments);
