// A thread block takes 8 batch rows through all time steps, a warp 8 hidden units with their four
// gates. W_hh stays in registers as fragments of mma.m16n8k16 (D[16x8] += A[16x16] B[16x8]): gates
// are m, batch rows n, hidden units k. Lane 4g + q of warp w gets the gates of unit 8w + g for rows
// 2q and 2q + 1, so that a cell lives in one thread: c never leaves its registers.
//
// An operand x is two bfloat16, high + low, together within 2^-17 of x. Of a product's four terms
// the smallest, low times low, is left out: three mma.
//
// h(t) goes through shared memory, two tiles in turn: one __syncthreads a time step. Which k of a
// product comes first is free, as long as both operands agree: a lane takes 8 neighbours with one
// 16-byte load, the first four for one mma and the other four for the next. 16-byte chunks of row n
// are XORed with swizzle(n), so that loads and stores touch each bank once.
//
// Backward, dh(t-1) = W_hh^T d(gates): 16 units are m, 4H gates k. Two neighbouring warps share the
// 16 units that they own together; each multiplies half of the gates and hands the other the sums
// of the units that are not its own.
//
// What a time step reads from device memory is fetched kAhead steps early, into a ring of slots.
// Rows beyond the batch repeat its last one forward, and have gradients of zero backward.
#pragma once

#include "lstm_recurrence.h"

#include <cuda_pipeline_primitives.h>

namespace rp_recurrence {

constexpr int kRows = RP_LSTM_RECURRENCE_ROWS;
constexpr int kAhead = 4; // a power of two

// Of the ring, for time step t; -1 has one too.
__device__ __forceinline__ int slot(int t) {
    return t & kAhead - 1;
}

// ---- Arithmetic ---------------------------------------------------------------------------------
// Two numbers, the first in the lower halves of the words.
struct Split {
    uint32_t high, low;
    __device__ __forceinline__ Split(float x, float y) : high(pack(x, y)) {
        low = pack(x - __uint_as_float(high << 16), y - __uint_as_float(high & 0xffff0000u));
    }
    static __device__ __forceinline__ uint32_t pack(float x, float y) {
        uint32_t r;
        asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(y), "f"(x));
        return r;
    }
};

// 16 rows of 16 k of W_hh: this lane's eight numbers.
struct Fragment {
    uint32_t high[4], low[4];
    __device__ __forceinline__ void set(int k, Split value) {
        high[k] = value.high;
        low[k] = value.low;
    }
};

__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Three chains of sums, so that no mma waits for the one before.
struct Sum {
    float term[3][4] = {};
    // w's two fragments, for the first and the last four numbers of a chunk.
    __device__ __forceinline__ void add(const Fragment (&w)[2], uint4 high, uint4 low) {
        mma(term[0], w[0].high, high.x, high.y);
        mma(term[1], w[0].high, low.x, low.y);
        mma(term[2], w[0].low, high.x, high.y);
        mma(term[0], w[1].high, high.z, high.w);
        mma(term[1], w[1].high, low.z, low.w);
        mma(term[2], w[1].low, high.z, high.w);
    }
    __device__ __forceinline__ float operator[](int k) const {
        return term[0][k] + (term[1][k] + term[2][k]);
    }
};

// 1 / (1 + 2^x) of both within 3e-7, with one division: beyond 60 it is 2^-60. sigmoid(y) is that
// of x = -log2(e) y, and tanh(y) = 2 sigmoid(2y) - 1.
__device__ __forceinline__ float2 sigmoids_of_powers(float x, float y) {
    const auto one_plus_power = [](float exponent) {
        float power;
        asm("{.reg .f32 e; min.NaN.f32 e,%1,0f42700000; ex2.approx.ftz.f32 %0,e;}"
            : "=f"(power)
            : "f"(exponent));
        return 1.0f + power;
    };
    const float a = one_plus_power(x), b = one_plus_power(y);
    float inverse;
    asm("rcp.approx.ftz.f32 %0,%1;" : "=f"(inverse) : "f"(a * b));
    return make_float2(inverse * b, inverse * a);
}
constexpr float kLog2E = 1.4426950408889634f;
__device__ __forceinline__ constexpr float power_scale(int gate) {
    return gate == 2 ? -2.0f * kLog2E : -kLog2E;
}
__device__ __forceinline__ float tanh_of_sigmoid(float sigmoid) {
    return fmaf(2.0f, sigmoid, -1.0f);
}
// tanh of both rows' c.
__device__ __forceinline__ float2 tanh_of_cells(const float (&c)[2]) {
    const float2 s = sigmoids_of_powers(-2.0f * kLog2E * c[0], -2.0f * kLog2E * c[1]);
    return make_float2(tanh_of_sigmoid(s.x), tanh_of_sigmoid(s.y));
}

// ---- Places -------------------------------------------------------------------------------------
// Of rows whose length is a multiple of 128 bytes; rows of 64 bytes (h of 32 units) have their own.
__device__ __forceinline__ int swizzle(int n) {
    return n ^ (n & 1) << 2;
}
template <int H> __device__ __forceinline__ int hidden_swizzle(int n) {
    return H == 32 ? n >> 1 & 3 : swizzle(n);
}

template <int H> struct Place {
    int warp, g, q, unit, row; // row: of the batch, the first of the thread's two
    int rows;                  // how many of the two are in the batch

    __device__ __forceinline__ Place(int batch)
        : warp(threadIdx.x / 32), g(threadIdx.x / 4 % 8), q(threadIdx.x % 4), unit(threadIdx.x / 4),
          row(blockIdx.x * kRows + 2 * q), rows(min(max(batch - row, 0), 2)) {}
    __device__ __forceinline__ bool has(int e) const { return e < rows; }
    // Of this thread's unit in row e, in an array [B][columns].
    __device__ __forceinline__ int64_t at(int e, int columns) const {
        return (int64_t)(row + e) * columns + unit;
    }
    __device__ __forceinline__ float read(const float *array, int e) const {
        return array && has(e) ? array[at(e, H)] : 0.0f;
    }
};

// What forward saved of a block at one time step: every thread's own, and so in its order.
template <int H> struct SavedStep {
    float4 gates[2][4 * H]; // i, f, g, o of each row
    float2 before[4 * H];   // c of both rows, one time step earlier
};

// One block a multiprocessor has more registers and is faster alone; 512 threads in blocks of 128
// registers a thread are faster together.
template <int H, class Params, class Alone, class Together>
cudaError_t launch(const Params &params, Alone alone, Together together, size_t shared_bytes,
                   cudaStream_t stream) {
    int device = 0, multiprocessors = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    }
    const int blocks = (params.shape.batch + kRows - 1) / kRows;
    const auto kernel = blocks <= multiprocessors ? alone : together;
    if (error == cudaSuccess && shared_bytes > 0) {
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)shared_bytes);
    }
    if (error != cudaSuccess) {
        return error;
    }
    kernel<<<blocks, 4 * H, shared_bytes, stream>>>(params);
    return cudaGetLastError();
}

} // namespace rp_recurrence
