// The head: BatchNorm by the statistics of the whole batch, LeakyReLU, Linear(H, 1), mean squared
// error, and back to dh of the last time step. A tile's numbers stay in its own block's registers
// (or its scratch); only sums over tiles cross the grid, each made by one warp for all blocks. No
// barrier lies before their reading: each number tells by itself that it has been written.
//
//   xhat = (h - mean) inv_std      a = xhat > 0 ? xhat : slope xhat      y = a . weight + bias
//   dz = 2 (y - target) / B weight (xhat > 0 ? 1 : slope)
//   dh = inv_std (dz - sum(dz) / B - xhat sum(dz xhat) / B)
#pragma once

#include "lstm_train_layout.cuh"

namespace rp_lstm {

template <class L> struct HeadShared {
    float mean[L::kHidden], inv_std[L::kHidden];
    float m2[L::kHidden];                               // sum of squared deviations
    float block_mean[L::kHidden], block_m2[L::kHidden]; // the same of the block's tiles so far
    float sum_dz[L::kHidden], sum_dz_xhat[L::kHidden];  // over the batch, divided by B
    float output[L::kWarps][kRows];                     // of a warp's 8 units
};

// ---- Numbers that cross the grid carry in their two last bits the stamp of their step: a reader
// asks until it finds the one it needs. Costs up to 3/2 2^-22 of the number, towards zero, and
// saves a fence, an arrival and a wait. A cluster misses one step at most (the short last one of an
// epoch), so that what it left there is two steps old at most and has another stamp.
__device__ __forceinline__ void publish(float2 *place, float x, float y, uint32_t stamp) {
    store_relaxed(place, (__float_as_uint(x) & ~3u) | stamp, (__float_as_uint(y) & ~3u) | stamp);
}
// Waits until the number at `place` has the stamp; v is what an earlier load found there.
__device__ __forceinline__ float2 wait_published(const float2 *place, uint32_t stamp, uint2 v) {
    while (((v.x ^ stamp) | (v.y ^ stamp)) & 3) {
        v = load_relaxed(place);
    }
    return make_float2(__uint_as_float(v.x & ~3u), __uint_as_float(v.y & ~3u));
}

__device__ __forceinline__ float sum_over_rows(float v) { // the 4 lanes of a unit
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}

// Mean and sum of squared deviations (M2) of the tile's h, of each unit, joined in shared memory
// with those of `before` rows of the block's tiles before it (Chan, Golub, LeVeque 1979).
template <class L>
__device__ __forceinline__ void join_statistics(const Thread &th, HeadShared<L> &shared,
                                                const float (&h)[2], int rows, int before) {
    const bool valid[2] = {2 * th.q() < rows, 2 * th.q() + 1 < rows};
    float mean =
        __fdividef(sum_over_rows((valid[0] ? h[0] : 0.0f) + (valid[1] ? h[1] : 0.0f)), (float)rows);
    const float d0 = valid[0] ? h[0] - mean : 0.0f, d1 = valid[1] ? h[1] - mean : 0.0f;
    float m2 = sum_over_rows(d0 * d0 + d1 * d1);
    if (th.q() == 0) {
        if (before > 0) {
            const float mean_before = shared.block_mean[th.unit()], d = mean - mean_before;
            const float part = __fdividef((float)rows, (float)(before + rows));
            mean = fmaf(d, part, mean_before);
            m2 += fmaf(d * d * part, (float)before, shared.block_m2[th.unit()]);
        }
        shared.block_mean[th.unit()] = mean;
        shared.block_m2[th.unit()] = m2;
    }
}
// The block's, to statistics [H], by the threads that have joined them.
template <class L>
__device__ __forceinline__ void publish_statistics(const Thread &th, const HeadShared<L> &shared,
                                                   uint32_t stamp, float2 *statistics) {
    if (th.q() == 0) {
        publish(statistics + th.unit(), shared.block_mean[th.unit()], shared.block_m2[th.unit()],
                stamp);
    }
}

// One warp: a unit's numbers of all clusters, `numbers` [clusters][H]. value(cluster, its numbers,
// the first cluster's) is added up, by lanes in the order of clusters.
template <class L, class Value>
__device__ __forceinline__ float2 sum_over_clusters(const Thread &th, uint32_t stamp, int clusters,
                                                    const float2 *numbers, const Value &value) {
    constexpr int kTurns = (kMaxClusters + 31) / 32;
    float2 sum = make_float2(0.0f, 0.0f), first;
    uint2 found[kTurns]; // all are asked for before the first is waited for
#pragma unroll
    for (int k = 0; k < kTurns; ++k) {
        const int cluster = 32 * k + th.lane();
        found[k] = cluster < clusters ? load_relaxed(numbers + cluster * L::kHidden)
                                      : make_uint2(stamp, stamp);
    }
#pragma unroll
    for (int k = 0; k < kTurns; ++k) {
        const int cluster = 32 * k + th.lane();
        const float2 v = wait_published(numbers + cluster * L::kHidden, stamp, found[k]);
        if (k == 0) {
            first.x = __shfl_sync(~0u, v.x, 0);
            first.y = __shfl_sync(~0u, v.y, 0);
        }
        if (cluster < clusters) {
            const float2 term = value(cluster, v, first);
            sum.x += term.x;
            sum.y += term.y;
        }
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        sum.x += __shfl_xor_sync(~0u, sum.x, offset);
        sum.y += __shfl_xor_sync(~0u, sum.y, offset);
    }
    return sum;
}

// combine(unit) makes the batch's numbers of a unit from its clusters'. The warps of all heads
// share the units, and publish what every block then reads; so no block reads all clusters' numbers
// of all units. The first H threads have the result.
template <class L, class Combine>
__device__ __forceinline__ float2 exchange(const Thread &th, const Batch &batch, int cluster,
                                           int heads, float2 *totals, const Combine &combine) {
#pragma unroll 1
    for (int unit = cluster + th.warp() * heads; unit < L::kHidden; unit += L::kWarps * heads) {
        const float2 total = combine(unit);
        if (th.lane() == 0) {
            publish(totals + unit, total.x, total.y, batch.stamp);
        }
    }
    return th.id < L::kHidden
               ? wait_published(totals + th.id, batch.stamp, load_relaxed(totals + th.id))
               : make_float2(0.0f, 0.0f);
}

// Mean and inverse deviation of every unit over the batch. `statistics`: see Workspace.
template <class L>
__device__ __forceinline__ void combine_statistics(const Thread &th, HeadShared<L> &shared,
                                                   const Batch &batch, int cluster, int heads,
                                                   float2 *statistics, float norm_eps) {
    const float rows = (float)batch.rows;
    const float2 total =
        exchange<L>(th, batch, cluster, heads, statistics + heads * L::kHidden, [&](int unit) {
            float shift = 0.0f; // the first cluster's mean: keeps the sums small
            const float2 sum =
                sum_over_clusters<L>(th, batch.stamp, heads, statistics + unit,
                                     [&](int c, const float2 &s, const float2 &first) {
                                         shift = first.x;
                                         const float count = (float)batch.rows_of(c),
                                                     d = s.x - shift;
                                         return make_float2(count * d, s.y + count * d * d);
                                     });
            const float offset = __fdividef(sum.x, rows);
            return make_float2(__shfl_sync(~0u, shift, 0) + offset,
                               fmaxf(sum.y - offset * offset * rows, 0.0f));
        });
    if (th.id < L::kHidden) {
        shared.mean[th.id] = total.x;
        shared.inv_std[th.id] = rsqrtf(__fdividef(total.y, rows) + norm_eps);
        shared.m2[th.id] = total.y;
    }
    __syncthreads(); // these, for the whole block
}

// By one block of the model.
template <class L>
__device__ __forceinline__ void
move_running_statistics(const Thread &th, const HeadShared<L> &shared, const Batch &batch,
                        float momentum, float *running_mean, float *running_var) {
    if (th.id < L::kHidden) {
        const float variance = shared.m2[th.id] / ((float)batch.rows - 1.0f);
        running_mean[th.id] += momentum * (shared.mean[th.id] - running_mean[th.id]);
        running_var[th.id] += momentum * (variance - running_var[th.id]);
    }
}

template <class L>
__device__ __forceinline__ void combine_sums(const Thread &th, HeadShared<L> &shared,
                                             const Batch &batch, int cluster, int heads,
                                             float2 *sums) {
    const float2 total =
        exchange<L>(th, batch, cluster, heads, sums + heads * L::kHidden, [&](int unit) {
            return sum_over_clusters<L>(
                th, batch.stamp, heads, sums + unit,
                [](int, const float2 &of_cluster, const float2 &) { return of_cluster; });
        });
    if (th.id < L::kHidden) {
        const float rows = (float)batch.rows;
        shared.sum_dz[th.id] = __fdividef(total.x, rows);
        shared.sum_dz_xhat[th.id] = __fdividef(total.y, rows);
    }
    __syncthreads(); // the sums, for the whole block
}

// A thread's parts of the sums over the rows of its block.
struct HeadSums {
    float dz, dz_xhat;           // of its unit
    float weight, bias, squares; // d(head weight) of its unit; d(head bias); squared errors
};

// dz of the thread's two cells; adds to the sums.
template <class L>
__device__ __forceinline__ void head_tile(const Thread &th, HeadShared<L> &shared,
                                          const Batch &batch, int tile, const float (&h)[2],
                                          const float2 &target, float weight, float bias,
                                          float negative_slope, float (&dz)[2], HeadSums &sums) {
    const int rows = batch.rows_in_tile(tile);
    const float mean = shared.mean[th.unit()], inv_std = shared.inv_std[th.unit()];
    float xhat[2], slope[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        xhat[e] = (h[e] - mean) * inv_std;
        slope[e] = xhat[e] > 0.0f ? 1.0f : negative_slope;
        float y = xhat[e] * slope[e] * weight;
        y += __shfl_xor_sync(~0u, y, 4);
        y += __shfl_xor_sync(~0u, y, 8);
        y += __shfl_xor_sync(~0u, y, 16);
        if (th.g() == 0) {
            shared.output[th.warp()][2 * th.q() + e] = y;
        }
    }
    __syncthreads(); // all warps' parts of y
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const int row = 2 * th.q() + e;
        float y = bias;
#pragma unroll
        for (int i = 0; i < L::kWarps; ++i) {
            y += shared.output[i][row];
        }
        const float error = row < rows ? y - (e ? target.y : target.x) : 0.0f;
        const float dy = error * batch.two_over_rows;
        sums.bias += dy;
        sums.squares += error * error;
        dz[e] = dy * weight * slope[e];
        sums.dz += dz[e];
        sums.dz_xhat += dz[e] * xhat[e];
        sums.weight += dy * xhat[e] * slope[e];
    }
}

// The block's sums, to `sums` [H] and `head` [H + 2].
template <class L>
__device__ __forceinline__ void store_head_sums(const Thread &th, const HeadSums &block,
                                                uint32_t stamp, float2 *sums, float *head) {
    const float dz = sum_over_rows(block.dz), dz_xhat = sum_over_rows(block.dz_xhat);
    if (th.q() == 0) { // first, as other blocks wait for these
        publish(sums + th.unit(), dz, dz_xhat, stamp);
    }
    const float weight = sum_over_rows(block.weight), bias = sum_over_rows(block.bias);
    const float squares = sum_over_rows(block.squares);
    if (th.q() == 0) {
        __stcg(head + th.unit(), weight);
        if (th.unit() == 0) {
            __stcg(head + L::kHidden, bias);
            __stcg(head + L::kHidden + 1, squares);
        }
    }
}

// Gradient of the last h, times the loss scale; 0 in rows the tile does not have.
template <class L>
__device__ __forceinline__ void head_gradient(const Thread &th, const HeadShared<L> &shared,
                                              const Batch &batch, int tile, const float (&h)[2],
                                              const float (&dz)[2], float scale, float (&dh)[2]) {
    const int rows = batch.rows_in_tile(tile);
    const float mean = shared.mean[th.unit()], inv_std = shared.inv_std[th.unit()];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const float xhat = (h[e] - mean) * inv_std;
        const float gradient =
            inv_std * (dz[e] - shared.sum_dz[th.unit()] - xhat * shared.sum_dz_xhat[th.unit()]);
        dh[e] = 2 * th.q() + e < rows ? gradient * scale : 0.0f;
    }
}

} // namespace rp_lstm
