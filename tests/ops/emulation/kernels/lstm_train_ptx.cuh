// ops/kernels/lstm_train_ptx.cuh in C++, with the same names: stands in its place. Products, tanh
// and divisions are exact but for one rounding.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "cuda_runtime.h"

namespace rp_lstm {

// ---- A block's shared memory --------------------------------------------------------------------
template <class T> T &shared_object() {
    static_assert(sizeof(T) <= emulation::object_bytes);
    return *reinterpret_cast<T *>(emulation::thread->block->memory);
}
inline uint8_t *dynamic_shared() {
    return emulation::thread->block->memory + emulation::object_bytes;
}
inline uint32_t shared_address(const void *pointer) {
    return static_cast<uint32_t>(static_cast<const uint8_t *>(pointer) -
                                 emulation::shared_memory());
}
template <class T> T &at(uint32_t address) {
    return *reinterpret_cast<T *>(emulation::shared_at(address, sizeof(T), sizeof(T)));
}

inline int computed_here(int v) {
    return v;
}

// ---- Numbers ------------------------------------------------------------------------------------
inline float fast_tanh(float x) {
    return tanhf(x);
}
inline uint32_t bits_of(_Float16 v) {
    uint16_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
inline float float_of_fp16(uint32_t bits) {
    const uint16_t low = static_cast<uint16_t>(bits);
    _Float16 v;
    memcpy(&v, &low, sizeof v);
    return static_cast<float>(v);
}
inline uint32_t pack_fp16(float low, float high) {
    return bits_of(static_cast<_Float16>(low)) | bits_of(static_cast<_Float16>(high)) << 16;
}
inline float2 unpack_fp16(uint32_t pair) {
    return {float_of_fp16(pair), float_of_fp16(pair >> 16)};
}
inline float float_of_bf16(uint32_t bits) {
    return __uint_as_float(bits << 16);
}
inline uint32_t round_bf16(float v) { // to the nearest, ties to even
    const uint32_t bits = __float_as_uint(v);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) {
    return round_bf16(low) | round_bf16(high) << 16;
}
inline uint32_t round_tf32(float v) { // to the nearest, ties away from zero
    return (__float_as_uint(v) + 0x1000) & 0xffffe000;
}

// ---- Products by a warp -------------------------------------------------------------------------
struct Fragments {
    uint32_t a[4], b[2];
};
// Lane 4g + q holds rows g and g + 8 of a and column g of b, at k = q of each run of 4 registers;
// a register has `packed` numbers side by side: number(register's bits, which).
template <int packed, class Number>
void multiply(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1, const Number &number) {
    const Fragments mine = {{a.x, a.y, a.z, a.w}, {b0, b1}};
    const int g = emulation::thread->lane() / 4, q = emulation::thread->lane() % 4;
    const float4 sum = emulation::exchange(mine, [&](const auto &given) {
        float result[4];
        for (int e = 0; e < 4; ++e) {
            const int upper = e >> 1, column = 2 * q + (e & 1);
            double products = 0.0;
            for (int half = 0; half < 2; ++half) {
                for (int lane = 0; lane < 4; ++lane) {
                    const uint32_t row = given(4 * g + lane).a[upper + 2 * half];
                    const uint32_t of_column = given(4 * column + lane).b[half];
                    for (int i = 0; i < packed; ++i) {
                        products += static_cast<double>(number(row, i)) * number(of_column, i);
                    }
                }
            }
            result[e] = static_cast<float>(c[e] + products);
        }
        return make_float4(result[0], result[1], result[2], result[3]);
    });
    c[0] = sum.x, c[1] = sum.y, c[2] = sum.z, c[3] = sum.w;
}
inline void mma_fp16(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
    multiply<2>(c, a, b0, b1, [](uint32_t v, int i) { return float_of_fp16(v >> 16 * i); });
}
inline void mma_bf16(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
    multiply<2>(c, a, b0, b1, [](uint32_t v, int i) { return float_of_bf16(v >> 16 * i); });
}
inline void mma_tf32(float (&c)[4], uint4 a, uint32_t b0, uint32_t b1) {
    multiply<1>(c, a, b0, b1, [](uint32_t v, int) { return __uint_as_float(v & 0xffffe000); });
}

// ---- Products by a warpgroup --------------------------------------------------------------------
// A matrix descriptor: [60] rows of 128 bytes, [59:46] to the next columns' tile, [45:32] to the
// next 8 rows' tile, both in units of 16 bytes as the hardware's, [31:0] the tile.
template <int row_bytes> uint64_t wgmma_matrix(uint32_t tile, uint32_t stride, uint32_t next = 0) {
    if (tile % (8 * row_bytes) != 0 || stride % 16 != 0 || next % 16 != 0 || stride >> 18 != 0 ||
        next >> 18 != 0) {
        fprintf(stderr, "emulation: a tile at %u, of rows of %d bytes; the others %u and %u away\n",
                tile, row_bytes, stride, next);
        abort();
    }
    return static_cast<uint64_t>(row_bytes == 128) << 60 | static_cast<uint64_t>(next >> 4) << 46 |
           static_cast<uint64_t>(stride >> 4) << 32 | tile;
}
// Element of row k of 16.
inline uint16_t wgmma_element(uint64_t matrix, int k, int column) {
    const bool wide = matrix >> 60 & 1;
    const int columns = wide ? 64 : 32, row = k % 8, chunk = column % columns / 8;
    const auto next = static_cast<uint32_t>(matrix >> 46 & 0x3fff) << 4;
    const auto stride = static_cast<uint32_t>(matrix >> 32 & 0x3fff) << 4;
    if (column >= columns && next == 0) {
        fprintf(stderr, "emulation: column %d of a matrix without a next tile\n", column);
        abort();
    }
    return at<uint16_t>(static_cast<uint32_t>(matrix) + column / columns * next + k / 8 * stride +
                        static_cast<uint32_t>(row * columns * 2 +
                                              (chunk ^ (wide ? row : row >> 1)) * 16 +
                                              column % 8 * 2));
}
template <int count, class Number>
void multiply(float (&d)[count], uint64_t a, uint64_t b, const Number &number) {
    const int lane = emulation::thread->lane();
    const int first_row = static_cast<int>(emulation::thread->index.x) / 32 % 4 * 16 + lane / 4;
    for (int i = 0; i < count; ++i) {
        const int row = first_row + (i >> 1 & 1) * 8, column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
        double products = 0.0;
        for (int k = 0; k < 16; ++k) {
            products += static_cast<double>(number(wgmma_element(a, k, row))) *
                        number(wgmma_element(b, k, column));
        }
        d[i] = static_cast<float>(d[i] + products);
    }
}
// Products read their operands, and write, no earlier than somebody waits for them.
template <int count, class Number>
void wgmma(float (&d)[count], uint64_t a, uint64_t b, const Number &number) {
    auto &products = emulation::thread->products;
    if (products.empty()) {
        products.emplace_back();
    }
    products.back().push_back([&d, a, b, number] { multiply(d, a, b, number); });
}
template <int count> void wgmma_f16(float (&d)[count], uint64_t a, uint64_t b) {
    wgmma(d, a, b, float_of_fp16);
}
template <int count> void wgmma_bf16(float (&d)[count], uint64_t a, uint64_t b) {
    wgmma(d, a, b, float_of_bf16);
}
inline void wgmma_fence() {}
inline void wgmma_commit() {
    emulation::thread->products.emplace_back();
}
template <int count> void wgmma_settle(float (&)[count]) {}
template <int pending> void wgmma_wait() {
    static_assert(pending <= 7);
    auto &products = emulation::thread->products;
    while (products.size() > pending + 1) { // the last has no commit yet
        for (const auto &product : products.front()) {
            product();
        }
        products.erase(products.begin());
    }
}

// ---- Across the grid ----------------------------------------------------------------------------
inline void release_add(unsigned *counter) {
    ++*counter;
}
inline unsigned load_acquire(const unsigned *counter) {
    emulation::yield();
    return *counter;
}
inline void store_relaxed(float2 *place, uint32_t x, uint32_t y) {
    place->x = __uint_as_float(x);
    emulation::yield(); // the two words are no unit
    place->y = __uint_as_float(y);
}
inline uint2 load_relaxed(const float2 *place) {
    emulation::yield();
    return {__float_as_uint(place->x), __float_as_uint(place->y)};
}

// ---- Shared memory ------------------------------------------------------------------------------
inline uint4 load_shared16(uint32_t address) {
    return at<uint4>(address);
}
inline uint32_t load_shared4(uint32_t address) {
    return at<uint32_t>(address);
}
inline float2 load_shared_float2(uint32_t address) {
    return at<float2>(address);
}
inline void store_shared4(uint32_t address, uint32_t v) {
    at<uint32_t>(address) = v;
}
inline void store_shared16(uint32_t address, uint4 v) {
    at<uint4>(address) = v;
}
inline void store_shared_float2(uint32_t address, float x, float y) {
    at<float2>(address) = {x, y};
}
inline void store_pairs(uint32_t address, uint32_t x, uint32_t y) {
    at<uint2>(address) = {x, y};
}
inline void store_pairs(uint32_t address, uint2 x, uint2 y) {
    at<uint4>(address) = {x.x, x.y, y.x, y.y};
}
inline void store_apart(uint32_t low, uint32_t high, uint32_t pair) {
    at<uint16_t>(low) = static_cast<uint16_t>(pair);
    at<uint16_t>(high) = static_cast<uint16_t>(pair >> 16);
}
inline void store_apart(uint32_t low, uint32_t high, uint2 pair) {
    at<uint32_t>(low) = pair.x;
    at<uint32_t>(high) = pair.y;
}
inline float4 load_shared_float4(uint32_t address) {
    return at<float4>(address);
}
inline void store_shared_float4(uint32_t address, const float *v) {
    at<float4>(address) = {v[0], v[1], v[2], v[3]};
}
inline void store_pair(uint32_t address, uint32_t pair) {
    store_shared4(address, pair);
}
inline void store_pair(uint32_t address, uint2 pair) {
    store_pairs(address, pair.x, pair.y);
}
inline void load_matrix_transposed(uint32_t address, uint32_t (&v)[4]) {
    struct Row {
        uint16_t element[8];
    };
    const int row = 2 * (emulation::thread->lane() % 4), column = emulation::thread->lane() / 4;
    const uint4 words = emulation::exchange(at<Row>(address), [&](const auto &given) {
        const auto pair = [&](int tile) {
            const uint32_t low = given(8 * tile + row).element[column];
            return low | static_cast<uint32_t>(given(8 * tile + row + 1).element[column]) << 16;
        };
        return make_uint4(pair(0), pair(1), pair(2), pair(3));
    });
    v[0] = words.x, v[1] = words.y, v[2] = words.z, v[3] = words.w;
}

// ---- Barriers in shared memory ------------------------------------------------------------------
struct Barrier {
    uint8_t phase, arrivals_missing;
    bool missed; // nobody has waited for the phase before
    int32_t bytes_missing;
    void complete() {
        if (arrivals_missing == 0 && bytes_missing == 0) {
            phase ^= 1;
            arrivals_missing = 1;
            missed = true;
        }
    }
};
static_assert(sizeof(Barrier) == 8);
inline void barrier_init(uint32_t barrier) {
    at<Barrier>(barrier) = {0, 1, false, 0};
}
inline void fence_barrier_init() {}
inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
    Barrier &b = at<Barrier>(barrier);
    if (b.arrivals_missing == 0) {
        fprintf(stderr, "emulation: a second arrival in one phase of a barrier\n");
        abort();
    }
    if (b.missed) {
        fprintf(stderr, "emulation: a phase of a barrier that nobody has waited for\n");
        abort();
    }
    b.arrivals_missing = 0;
    b.bytes_missing += static_cast<int32_t>(bytes);
    b.complete();
}
inline void barrier_receive(uint32_t barrier, size_t bytes) {
    at<Barrier>(barrier).bytes_missing -= static_cast<int32_t>(bytes);
    at<Barrier>(barrier).complete();
}
inline bool barrier_test(uint32_t barrier, uint32_t parity) {
    Barrier &b = at<Barrier>(barrier);
    const bool complete = b.phase != parity;
    b.missed = b.missed && !complete;
    return complete;
}
inline void barrier_wait(uint32_t barrier, uint32_t parity) {
    while (!barrier_test(barrier, parity)) {
        emulation::yield();
    }
}

// ---- Bulk copies, sums --------------------------------------------------------------------------
inline void fence_async_shared() {}
inline void fence_async_device() {}
inline void bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier) {
    if (bytes % 16 != 0) {
        fprintf(stderr, "emulation: a bulk copy of %u bytes\n", bytes);
        abort();
    }
    emulation::at_last([=] {
        memcpy(emulation::shared_at(to, bytes, 16), from, bytes);
        barrier_receive(barrier, bytes);
    });
}
inline void add(float *place, float v) {
    *place += v;
}
inline void add(float4 *place, float4 v) {
    add(&place->x, v.x);
    add(&place->y, v.y);
    add(&place->z, v.z);
    add(&place->w, v.w);
}

inline float add_flushed(float a, float b) {
    return a + b;
}

// ---- The other block of the cluster -------------------------------------------------------------
inline uint32_t address_in_block(uint32_t address, uint32_t rank) {
    const auto blocks = static_cast<uint32_t>(emulation::thread->block->cluster_blocks);
    const uint32_t mine = blockIdx.x % blocks;
    return address + (rank - mine) * static_cast<uint32_t>(emulation::shared_bytes);
}
inline void store_in_block(uint32_t address, float v) {
    at<float>(address) = v;
}
template <class T> void send(uint32_t address, const T &v, uint32_t barrier) {
    emulation::later([=] {
        at<T>(address) = v;
        barrier_receive(barrier, sizeof v);
    });
}
inline void send_pair(uint32_t address, uint32_t v, uint32_t barrier) {
    send(address, v, barrier);
}
inline void send_pair(uint32_t address, uint2 v, uint32_t barrier) {
    send(address, v, barrier);
}
inline void send8(uint32_t address, float x, float y, uint32_t barrier) {
    send(address, make_float2(x, y), barrier);
}
inline void cluster_arrive_after_reads() {
    const emulation::Block &block = *emulation::thread->block;
    emulation::arrive(*block.cluster, block.threads * block.cluster_blocks);
}
inline void cluster_wait() {
    emulation::wait(*emulation::thread->block->cluster);
}
inline void cluster_barrier() {
    cluster_arrive_after_reads();
    cluster_wait();
}

} // namespace rp_lstm
