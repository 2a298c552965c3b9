// Hopper's instructions that CUDA C++ has no name for, as functions: all that the training kernel
// has of PTX. Shared-memory addresses are 32-bit (of the shared window), as the instructions take
// them. tests/ops/emulation has the same functions in C++, and so the kernel on the CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace rp_lstm {

// ---- A block's shared memory: one object, and what the launch asks for
// ---------------------------
template <class T> __device__ __forceinline__ T &shared_object() {
    __shared__ T object;
    return object;
}
__device__ __forceinline__ uint8_t *dynamic_shared() {
    extern __shared__ __align__(1024) uint8_t memory[];
    return memory;
}
__device__ __forceinline__ uint32_t shared_address(const void *pointer) {
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

// The same value, but unknown to the compiler: what depends on it is computed here and now, not
// hoisted out of the loop over steps and held in registers for the whole life of the block.
__device__ __forceinline__ int computed_here(int v) {
    asm volatile("" : "+r"(v));
    return v;
}

// ---- Numbers ------------------------------------------------------------------------------------
__device__ __forceinline__ float fast_tanh(float x) { // relative error 5e-4
    float y;
    asm("tanh.approx.f32 %0,%1;" : "=f"(y) : "f"(x));
    return y;
}
__device__ __forceinline__ uint32_t pack_fp16(float low, float high) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ float2 unpack_fp16(uint32_t pair) {
    return __half22float2(*reinterpret_cast<const __half2 *>(&pair));
}
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0,%1,%2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ uint32_t round_tf32(float v) {
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0,%1;" : "=r"(r) : "f"(v));
    return r;
}

// ---- Products by a warp: c[16x8] += a[16xk] b[kx8], k = 16 operands of 16 bits or 8 of 32
// -----------
__device__ __forceinline__ void mma_fp16(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_bf16(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_tf32(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
}

// ---- Products by a warpgroup of matrices in shared memory: d[64 x N] = a^T b (+ d), k = 16
// ------- Such a matrix: 16 rows in two tiles of 8, `stride` bytes apart; kRowBytes of a row, whose
// 16-byte chunks are XORed by the row (of 128 bytes) or half of it (64). Columns beyond a row's lie
// in tiles `next` bytes later. A tile begins on a multiple of its size. (PTX ISA, wgmma: matrix
// descriptor, M- or N-major, 128- or 64-byte swizzle.)
template <int kRowBytes>
__device__ __forceinline__ uint64_t wgmma_matrix(uint32_t tile, uint32_t stride,
                                                 uint32_t next = 0) {
    static_assert(kRowBytes == 128 || kRowBytes == 64);
    return (uint64_t)(kRowBytes == 128 ? 1 : 2) << 62 | (uint64_t)(stride >> 4) << 32 |
           next >> 4 << 16 | (tile & 0x3ffff) >> 4;
}
#define RP_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RP_16(d, i) RP_4(d, i), RP_4(d, i + 4), RP_4(d, i + 8), RP_4(d, i + 12)
#define RP_NUMBERS_32                                                                              \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                                       \
    "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define RP_NUMBERS_48                                                                              \
    RP_NUMBERS_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define RP_NUMBERS_64                                                                              \
    RP_NUMBERS_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define RP_WGMMA(type, columns, registers, operands, ...)                                          \
    __device__ __forceinline__ void wgmma_##type(float(&d)[registers], uint64_t a, uint64_t b) {   \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." #type "." #type       \
                     " {" RP_NUMBERS_##registers "}," operands ",1,1,1,1,1;"                       \
                     : __VA_ARGS__                                                                 \
                     : "l"(a), "l"(b));                                                            \
    }
#define RP_WGMMAS(type)                                                                            \
    RP_WGMMA(type, 64, 32, "%32,%33", RP_16(d, 0), RP_16(d, 16))                                   \
    RP_WGMMA(type, 96, 48, "%48,%49", RP_16(d, 0), RP_16(d, 16), RP_16(d, 32))                     \
    RP_WGMMA(type, 128, 64, "%64,%65", RP_16(d, 0), RP_16(d, 16), RP_16(d, 32), RP_16(d, 48))
RP_WGMMAS(f16)
RP_WGMMAS(bf16)
#undef RP_WGMMAS
#undef RP_WGMMA
#undef RP_NUMBERS_64
#undef RP_NUMBERS_48
#undef RP_NUMBERS_32
#undef RP_16
#undef RP_4
// The compiler neither computes nor reads registers of `sums` across this.
template <int count> __device__ __forceinline__ void wgmma_settle(float (&sums)[count]) {
#pragma unroll
    for (float &v : sums) {
        asm volatile("" : "+f"(v)::"memory");
    }
}
// Before products: their registers, and what is in shared memory, are as the thread has left them.
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// The products since the last one belong together.
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Until all products are done but those of the last kPending commits, of which the hardware
// counts 7.
template <int kPending> __device__ __forceinline__ void wgmma_wait() {
    static_assert(kPending <= 7);
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// ---- Across the grid ----------------------------------------------------------------------------
// Adds 1, after all that the thread has seen or written.
__device__ __forceinline__ void release_add(unsigned *counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0],1;" ::"l"(counter) : "memory");
}
// Before all that the thread reads or writes.
__device__ __forceinline__ unsigned load_acquire(const unsigned *counter) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0,[%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}
// Two words at once, without an order.
__device__ __forceinline__ void store_relaxed(float2 *place, uint32_t x, uint32_t y) {
    asm volatile("st.relaxed.gpu.global.v2.b32 [%0],{%1,%2};" ::"l"(place), "r"(x), "r"(y)
                 : "memory");
}
__device__ __forceinline__ uint2 load_relaxed(const float2 *place) {
    uint2 v;
    asm volatile("ld.relaxed.gpu.global.v2.b32 {%0,%1},[%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(place)
                 : "memory");
    return v;
}

// ---- Shared memory ------------------------------------------------------------------------------
__device__ __forceinline__ uint4 load_shared16(uint32_t address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3},[%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(address));
    return v;
}
__device__ __forceinline__ uint32_t load_shared4(uint32_t address) {
    uint32_t v;
    asm volatile("ld.shared.u32 %0,[%1];" : "=r"(v) : "r"(address) : "memory");
    return v;
}
__device__ __forceinline__ float2 load_shared_float2(uint32_t address) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0,%1},[%2];" : "=f"(v.x), "=f"(v.y) : "r"(address) : "memory");
    return v;
}
__device__ __forceinline__ void store_shared4(uint32_t address, uint32_t v) {
    asm volatile("st.shared.u32 [%0],%1;" ::"r"(address), "r"(v) : "memory");
}
__device__ __forceinline__ void store_shared16(uint32_t address, uint4 v) {
    asm volatile("st.shared.v4.u32 [%0],{%1,%2,%3,%4};" ::"r"(address), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}
__device__ __forceinline__ void store_shared_float2(uint32_t address, float x, float y) {
    asm volatile("st.shared.v2.f32 [%0],{%1,%2};" ::"r"(address), "f"(x), "f"(y) : "memory");
}
// Two pairs of operands, of 16 or of 32 bits, side by side.
__device__ __forceinline__ void store_pairs(uint32_t address, uint32_t x, uint32_t y) {
    asm volatile("st.shared.v2.u32 [%0],{%1,%2};" ::"r"(address), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void store_pairs(uint32_t address, uint2 x, uint2 y) {
    store_shared16(address, make_uint4(x.x, x.y, y.x, y.y));
}
// The two operands of a pair go to two addresses.
__device__ __forceinline__ void store_apart(uint32_t low, uint32_t high, uint32_t pair) {
    asm volatile(
        "{.reg .b16 a,b; mov.b32 {a,b},%2; st.shared.b16 [%0],a; st.shared.b16 [%1],b;}" ::"r"(low),
        "r"(high), "r"(pair)
        : "memory");
}
__device__ __forceinline__ void store_apart(uint32_t low, uint32_t high, uint2 pair) {
    asm volatile("st.shared.u32 [%0],%2; st.shared.u32 [%1],%3;" ::"r"(low), "r"(high), "r"(pair.x),
                 "r"(pair.y)
                 : "memory");
}
__device__ __forceinline__ float4 load_shared_float4(uint32_t address) {
    const uint4 v = load_shared16(address);
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z),
                       __uint_as_float(v.w));
}
__device__ __forceinline__ void store_shared_float4(uint32_t address, const float *v) {
    store_shared16(address, make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]),
                                       __float_as_uint(v[2]), __float_as_uint(v[3])));
}
__device__ __forceinline__ void store_pair(uint32_t address, uint32_t pair) {
    store_shared4(address, pair);
}
__device__ __forceinline__ void store_pair(uint32_t address, uint2 pair) {
    store_pairs(address, pair.x, pair.y);
}
// Four 8x8 tiles of 16-bit elements, transposed; lane l gives the address of row l%8 of tile l/8.
__device__ __forceinline__ void load_matrix_transposed(uint32_t address, uint32_t (&v)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(address)
                 : "memory");
}

// ---- Barriers in shared memory: one arrival and a number of bytes complete a phase --------------
__device__ __forceinline__ void barrier_init(uint32_t barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0],1;" ::"r"(barrier) : "memory");
}
// After it: the other block of the cluster may use them, when it has met this one.
__device__ __forceinline__ void fence_barrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile(
        "{.reg .b64 s; mbarrier.arrive.expect_tx.shared::cta.b64 s,[%0],%1;}" ::"r"(barrier),
        "r"(bytes)
        : "memory");
}
// Whether the phase is complete; never waits, so that the answer can be asked for early.
__device__ __forceinline__ bool barrier_test(uint32_t barrier, uint32_t parity) {
    uint32_t complete;
    asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p,[%1],%2;"
                 "selp.b32 %0,1,0,p;}"
                 : "=r"(complete)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return complete != 0;
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred p;\nWAIT_%=:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p,[%0],%1;\n@!p bra WAIT_%=;\n}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

// ---- Bulk copies from device to shared memory: by one thread, 16 bytes or a multiple ------------
// Before one, and before products by warpgroups: every thread that has written what they read, or
// has read or written where copies go, makes that known to them, in shared memory ...
__device__ __forceinline__ void fence_async_shared() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// ... or in device memory; then a __syncthreads.
__device__ __forceinline__ void fence_async_device() {
    asm volatile("fence.proxy.async.global;" ::: "memory");
}
// Completes `barrier`, of this block, by the bytes.
__device__ __forceinline__ void bulk_load(uint32_t to, const void *from, uint32_t bytes,
                                          uint32_t barrier) {
    asm volatile("{.reg .b64 once; createpolicy.fractional.L2::evict_first.b64 once,1.0;"
                 "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0],[%1],%2,[%3],once;}" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

// ---- Sums in device memory: one thread has all of one, so their order is that of the program ----
__device__ __forceinline__ void add(float *place, float v) {
    asm volatile("red.relaxed.gpu.global.add.f32 [%0],%1;" ::"l"(place), "f"(v) : "memory");
}
__device__ __forceinline__ void add(float4 *place, float4 v) {
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0],{%1,%2,%3,%4};" ::"l"(place), "f"(v.x),
                 "f"(v.y), "f"(v.z), "f"(v.w)
                 : "memory");
}

// The same sum in a register: subnormal numbers are zero.
__device__ __forceinline__ float add_flushed(float a, float b) {
    float sum;
    asm("add.ftz.f32 %0,%1,%2;" : "=f"(sum) : "f"(a), "f"(b));
    return sum;
}

// ---- The other block of the cluster -------------------------------------------------------------
__device__ __forceinline__ uint32_t address_in_block(uint32_t address, uint32_t rank) {
    uint32_t remote;
    asm("mapa.shared::cluster.u32 %0,%1,%2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}
// Seen by the other block after the grid's next barrier.
__device__ __forceinline__ void store_in_block(uint32_t address, float v) {
    asm volatile("st.shared::cluster.f32 [%0],%1;" ::"r"(address), "f"(v) : "memory");
}
__device__ __forceinline__ void send_pair(uint32_t address, uint32_t v, uint32_t barrier) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0],%1,[%2];" ::"r"(address),
        "r"(v), "r"(barrier)
        : "memory");
}
__device__ __forceinline__ void send_pair(uint32_t address, uint2 v, uint32_t barrier) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0],{%1,%2},[%3];" ::"r"(
            address),
        "r"(v.x), "r"(v.y), "r"(barrier)
        : "memory");
}
__device__ __forceinline__ void send8(uint32_t address, float x, float y, uint32_t barrier) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0],{%1,%2},[%3];" ::"r"(
            address),
        "f"(x), "f"(y), "r"(barrier)
        : "memory");
}
// All threads of the cluster have arrived, and see what the others have written.
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}
// cluster_barrier in two halves and without its fence, which would wait for stores to device
// memory: for who has only read, and used, what the other block will write anew.
__device__ __forceinline__ void cluster_arrive_after_reads() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
    asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
}

} // namespace rp_lstm
