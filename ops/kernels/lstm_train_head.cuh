// The head: BatchNorm by the statistics of the whole batch, LeakyReLU, Linear(H, 1), mean squared
// error, and back to dh of the last time step. A tile's numbers stay in its own block's registers
// (or its scratch); only sums over tiles cross the grid, added by every block in the same order.
//
//   xhat = (h - mean) inv_std      a = xhat > 0 ? xhat : slope xhat      y = a . weight + bias
//   dz = 2 (y - target) / B weight (xhat > 0 ? 1 : slope)
//   dh = inv_std (dz - sum(dz) / B - xhat sum(dz xhat) / B)
#pragma once

#include "lstm_train_layout.cuh"

namespace rp_lstm {

template <class L> struct HeadShared {
    float mean[L::kHidden], inv_std[L::kHidden];
    float m2[L::kHidden];                              // sum of squared deviations
    float sum_dz[L::kHidden], sum_dz_xhat[L::kHidden]; // over the batch, divided by B
    float part[2][4][L::kHidden];
    float output[L::kWarps][kRows]; // of a warp's 8 units
};

__device__ __forceinline__ float sum_over_rows(float v) { // the 4 lanes of a unit
    v += __shfl_xor_sync(~0u, v, 1);
    return v + __shfl_xor_sync(~0u, v, 2);
}

__device__ __forceinline__ int rows_in_tile(int tile, const Batch &batch) {
    return min(kRows, batch.rows - tile * kRows);
}

// Mean and sum of squared deviations of the tile's h, of each unit, to statistics [H].
__device__ __forceinline__ void store_tile_statistics(const Thread &th, const float (&h)[2],
                                                      int rows, float2 *statistics) {
    const bool valid[2] = {2 * th.q() < rows, 2 * th.q() + 1 < rows};
    const float mean =
        sum_over_rows((valid[0] ? h[0] : 0.0f) + (valid[1] ? h[1] : 0.0f)) / (float)rows;
    const float d0 = valid[0] ? h[0] - mean : 0.0f, d1 = valid[1] ? h[1] - mean : 0.0f;
    const float m2 = sum_over_rows(d0 * d0 + d1 * d1);
    if (th.q() == 0) {
        __stcg(statistics + th.unit(), make_float2(mean, m2));
    }
}

// Sums over tiles of value(tile, unit), split over the block's 4 groups of H threads; afterwards
// the first H threads hold the totals of their unit.
template <class L, class Value>
__device__ __forceinline__ float2 sum_over_tiles(const Thread &th, HeadShared<L> &shared, int tiles,
                                                 const Value &value) {
    constexpr int kInFlight = 16; // loads of a thread at once: all of them, for 64 tiles
    const int unit = th.id % L::kHidden, group = th.id / L::kHidden;
    float2 sum = make_float2(0.0f, 0.0f);
    for (int first = group; first < tiles; first += 4 * kInFlight) {
        float2 v[kInFlight];
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            const int tile = first + 4 * i;
            v[i] = tile < tiles ? value(tile, unit) : make_float2(0.0f, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            sum.x += v[i].x;
            sum.y += v[i].y;
        }
    }
    shared.part[0][group][unit] = sum.x;
    shared.part[1][group][unit] = sum.y;
    __syncthreads(); // all four groups' parts
    float2 total;
    total.x = shared.part[0][0][unit] + shared.part[0][1][unit] + shared.part[0][2][unit] +
              shared.part[0][3][unit];
    total.y = shared.part[1][0][unit] + shared.part[1][1][unit] + shared.part[1][2][unit] +
              shared.part[1][3][unit];
    return total;
}

// Mean and inverse deviation of every unit over the batch.
template <class L>
__device__ __forceinline__ void combine_statistics(const Thread &th, HeadShared<L> &shared,
                                                   const Batch &batch, const float2 *statistics,
                                                   float norm_eps) {
    const int unit = th.id % L::kHidden;
    const float shift = __ldcg(statistics + unit).x; // of the first tile: keeps the sums small
    const float2 total = sum_over_tiles(th, shared, batch.tiles(), [&](int tile, int u) {
        const float2 s = __ldcg(statistics + tile * L::kHidden + u);
        const float count = (float)rows_in_tile(tile, batch), d = s.x - shift;
        return make_float2(count * d, s.y + count * d * d);
    });
    if (th.id < L::kHidden) {
        const float rows = (float)batch.rows, offset = total.x / rows;
        const float mean = shift + offset;
        const float m2 = fmaxf(total.y - offset * offset * rows, 0.0f);
        shared.mean[unit] = mean;
        shared.inv_std[unit] = rsqrtf(m2 / rows + norm_eps);
        shared.m2[unit] = m2;
    }
    __syncthreads(); // these, for the whole block; part may be reused
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
                                             const Batch &batch, const float2 *sums) {
    const float2 total = sum_over_tiles(th, shared, batch.tiles(), [&](int tile, int u) {
        return __ldcg(sums + tile * L::kHidden + u);
    });
    if (th.id < L::kHidden) {
        shared.sum_dz[th.id] = total.x / (float)batch.rows;
        shared.sum_dz_xhat[th.id] = total.y / (float)batch.rows;
    }
    __syncthreads(); // the sums, for the whole block
}

// Mean loss of the batch; called by one warp.
template <class L>
__device__ __forceinline__ float mean_squared_error(const Thread &th, const Batch &batch,
                                                    const float *head) {
    float squared = 0.0f;
    for (int tile = th.lane(); tile < batch.tiles(); tile += 32) {
        squared += __ldcg(head + (size_t)tile * (L::kHidden + 2) + L::kHidden + 1);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
        squared += __shfl_xor_sync(~0u, squared, offset);
    }
    return squared / (float)batch.rows;
}

// dz of the thread's two cells, and the tile's sums.
template <class L>
__device__ __forceinline__ void
head_tile(const Thread &th, HeadShared<L> &shared, const Batch &batch, int tile,
          const float (&h)[2], const float2 &target, float weight, float bias, float negative_slope,
          float (&dz)[2], float2 *sums, float *head) {
    const int rows = rows_in_tile(tile, batch);
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
    const float two_over_rows = 2.0f / (float)batch.rows;
    float error_sum = 0.0f, squared = 0.0f, dw = 0.0f, sum = 0.0f, sum_xhat = 0.0f;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const int row = 2 * th.q() + e;
        float y = bias;
#pragma unroll
        for (int i = 0; i < L::kWarps; ++i) {
            y += shared.output[i][row];
        }
        const float error = row < rows ? y - (e ? target.y : target.x) : 0.0f;
        const float dy = error * two_over_rows;
        error_sum += dy;
        squared += error * error;
        dz[e] = dy * weight * slope[e];
        sum += dz[e];
        sum_xhat += dz[e] * xhat[e];
        dw += dy * xhat[e] * slope[e];
    }
    sum = sum_over_rows(sum);
    sum_xhat = sum_over_rows(sum_xhat);
    dw = sum_over_rows(dw);
    error_sum = sum_over_rows(error_sum);
    squared = sum_over_rows(squared);
    if (th.q() == 0) {
        __stcg(sums + tile * L::kHidden + th.unit(), make_float2(sum, sum_xhat));
        float *row = head + (size_t)tile * (L::kHidden + 2);
        __stcg(row + th.unit(), dw);
        if (th.unit() == 0) {
            __stcg(row + L::kHidden, error_sum);
            __stcg(row + L::kHidden + 1, squared);
        }
    }
}

// Gradient of the last h, times the loss scale; 0 in rows the tile does not have.
template <class L>
__device__ __forceinline__ void head_gradient(const Thread &th, const HeadShared<L> &shared,
                                              const Batch &batch, int tile, const float (&h)[2],
                                              const float (&dz)[2], float scale, float (&dh)[2]) {
    const int rows = rows_in_tile(tile, batch);
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
