/* Counter-based randomness, the same on every device: Philox4x32-10 (Salmon et al. 2011,
 * "Parallel random numbers: as easy as 1, 2, 3") and, from it, the dropout mask, the initial
 * weights and the order of the samples.
 *
 * Policy: no generator has state. Every random decision is a pure function of (seed, where it is
 * used), so a resumed run needs only its step number, and all configurations draw the same numbers.
 */
#ifndef RP_KERNELS_RANDOM_H
#define RP_KERNELS_RANDOM_H

#include <stdint.h>

#ifdef __CUDACC__
#define RP_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define RP_HOST_DEVICE static inline
#endif

/* One tag a use, mixed into the key, so that no two uses share numbers. */
#define RP_RANDOM_WEIGHTS 0x57454947u
#define RP_RANDOM_DROPOUT 0x44524f50u
#define RP_RANDOM_ORDER 0x4f524445u

typedef struct rp_philox_block {
    uint32_t word[4];
} rp_philox_block;

RP_HOST_DEVICE rp_philox_block rp_philox(uint64_t seed, uint32_t tag, uint32_t c0, uint32_t c1,
                                         uint32_t c2, uint32_t c3) {
    uint32_t k0 = (uint32_t)seed ^ tag;
    uint32_t k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    rp_philox_block block = {{c0, c1, c2, c3}};
    return block;
}

/* ---- Dropout ---------------------------------------------------------------------------------
 * One block decides 8 consecutive time steps of one (row, unit): 16 bits a decision, low half
 * first. `row` is the row's place in the batch, `step` the optimiser step from the start of
 * training, `layer` the layer whose output is dropped. A unit is kept when its 16 bits are not
 * below the threshold, and then scaled by rp_dropout_scale. */
RP_HOST_DEVICE uint32_t rp_dropout_threshold(float probability) {
    return (uint32_t)(probability * 65536.0f + 0.5f);
}

RP_HOST_DEVICE float rp_dropout_scale(uint32_t threshold) {
    return 65536.0f / (65536.0f - (float)threshold);
}

RP_HOST_DEVICE rp_philox_block rp_dropout_block(uint64_t seed, int64_t step, uint32_t row,
                                                uint32_t layer, uint32_t unit,
                                                uint32_t time_block) {
    return rp_philox(seed, RP_RANDOM_DROPOUT, row, unit | time_block << 16 | layer << 24,
                     (uint32_t)step, (uint32_t)((uint64_t)step >> 32));
}

/* Bit t % 8 of the answer: 1 when time step t of this block's eight is kept. */
RP_HOST_DEVICE uint32_t rp_dropout_keep_bits(rp_philox_block block, uint32_t threshold) {
    uint32_t keep = 0;
    for (int i = 0; i < 8; ++i) {
        const uint32_t bits = block.word[i / 2] >> (i % 2 * 16) & 0xffffu;
        keep |= (uint32_t)(bits >= threshold) << i;
    }
    return keep;
}

/* ---- Order of the samples -----------------------------------------------------------------------
 * A keyed bijection of [0, count): a balanced Feistel network over the next even power of two,
 * walked until it lands inside (fewer than four trips on average). Position i of epoch e trains
 * sample rp_order(i, count, seed, e): any position at any time, on any device, with no table. */
typedef struct rp_order_key {
    uint32_t round_key[8];
    uint32_t half_bits;
    uint32_t count;
} rp_order_key;

/* Optimiser steps of an epoch: BatchNorm needs two rows, so a last batch of one is left out. */
RP_HOST_DEVICE int64_t rp_steps_per_epoch(int64_t count, int64_t batch) {
    return count / batch + (count % batch >= 2);
}

RP_HOST_DEVICE rp_order_key rp_order_key_make(uint32_t count, uint64_t seed, uint32_t epoch) {
    rp_order_key key;
    const rp_philox_block a = rp_philox(seed, RP_RANDOM_ORDER, epoch, 0, 0, 0);
    const rp_philox_block b = rp_philox(seed, RP_RANDOM_ORDER, epoch, 1, 0, 0);
    for (int i = 0; i < 4; ++i) {
        key.round_key[i] = a.word[i];
        key.round_key[4 + i] = b.word[i];
    }
    key.count = count;
    key.half_bits = 1;
    while (key.half_bits < 16 && ((uint64_t)1 << (2 * key.half_bits)) < count) {
        ++key.half_bits;
    }
    return key;
}

RP_HOST_DEVICE uint32_t rp_order(uint32_t position, const rp_order_key *key) {
    const uint32_t mask = (1u << key->half_bits) - 1u;
    do {
        uint32_t left = position >> key->half_bits;
        uint32_t right = position & mask;
        for (int round = 0; round < 8; ++round) {
            uint32_t mixed = (right ^ key->round_key[round]) * 0x9E3779B1u;
            mixed ^= mixed >> 15;
            mixed *= 0x85EBCA77u;
            mixed ^= mixed >> 13;
            const uint32_t next = (left ^ mixed) & mask;
            left = right;
            right = next;
        }
        position = left << key->half_bits | right;
    } while (position >= key->count);
    return position;
}

#endif
