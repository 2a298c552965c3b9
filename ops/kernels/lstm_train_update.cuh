// Adam: sums the pieces' gradients in their order, updates, and writes the weights again as
// fragments for the next step. All blocks of a model share the work.
//
//   m += (1 - b1) (g - m)    v += (1 - b2) (g^2 - v)
//   w -= lr / (1 - b1^t)  m / (sqrt(v) / sqrt(1 - b2^t) + eps)
#pragma once

#include "lstm_train_layout.cuh"

namespace rp_lstm {

struct Adam {
    float beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, inv_sqrt_correction2, eps;
    float inv_scale; // of the gradients
};

// t = this update's number, from 1.
__device__ __forceinline__ Adam adam_of_step(const Launch &launch, float learning_rate, float scale,
                                             int64_t t) {
    const rp_lstm_train_params &p = launch.p;
    Adam adam;
    adam.beta1 = (float)p.beta1;
    adam.one_minus_beta1 = (float)(1.0 - p.beta1);
    adam.beta2 = (float)p.beta2;
    adam.one_minus_beta2 = (float)(1.0 - p.beta2);
    adam.step_size = learning_rate / -expm1f((float)((double)t * launch.log_beta1));
    adam.inv_sqrt_correction2 = rsqrtf(-expm1f((float)((double)t * launch.log_beta2)));
    adam.eps = p.adam_eps;
    adam.inv_scale = 1.0f / scale; // a power of two: exact
    return adam;
}

__device__ __forceinline__ void adam_update(const Adam &a, float gradient, float &weight, float &m,
                                            float &v) {
    m = fmaf(m, a.beta1, a.one_minus_beta1 * gradient);
    v = fmaf(v, a.beta2, a.one_minus_beta2 * gradient * gradient);
    weight -= __fdividef(a.step_size * m, fmaf(sqrtf(v), a.inv_sqrt_correction2, a.eps));
}

// Two neighbouring columns of one weight matrix: one word of a piece's partial sums.
struct WeightPair {
    int parameter; // of the first, in the concatenated parameters
    int gate, unit, column;
    int layer;
    bool recurrent, has_first, has_second;
};

template <class L> __device__ __forceinline__ WeightPair weight_pair(int word, int features) {
    // Word = (((block of 8 columns * row groups + row group) * 4 + m) * 32 + lane) * 2 + low/high.
    const int lane = word >> 1 & 31, m = word >> 6 & 3, rest = word >> 8;
    const int row = rest % L::kRowGroups * 64 + m * 16 + (word & 1) * 8 + (lane >> 2);
    const int pair_column = 2 * (lane & 3);
    int block = rest / L::kRowGroups;
    const int inputs = input_blocks(features), width = L::kHidden / 8;
    WeightPair pair;
    pair.gate = row & 3;
    pair.unit = row >> 2;
    pair.has_first = pair.has_second = true;
    const int matrix_row = pair.gate * L::kHidden + pair.unit;
    if (block < inputs) {
        pair.layer = 0;
        pair.recurrent = false;
        pair.column = 4 * block + (pair_column & 3) + (pair_column & 4) * 4; // its feature
        pair.has_first = pair.column < features;
        pair.has_second = pair.column + 1 < features;
        pair.parameter = matrix_row * features + pair.column;
        return pair;
    }
    block -= inputs;
    pair.layer = block < width ? 0 : 1;
    block -= pair.layer * width;
    pair.recurrent = pair.layer == 0 || block >= width;
    block -= pair.layer == 1 && pair.recurrent ? width : 0;
    pair.column = 8 * block + pair_column;
    const ParameterOffsets at = layer_offsets(pair.layer, features, L::kHidden);
    pair.parameter =
        (pair.recurrent ? at.recurrent : at.input) + matrix_row * L::kHidden + pair.column;
    return pair;
}

// Writes the pair where the forward and the backward pass look for it.
template <class L, class Op>
__device__ __forceinline__ void pack_pair(const WeightPair &pair, float first, float second,
                                          uint32_t *forward, uint32_t *backward) {
    const int warp = pair.unit >> 3, g = pair.unit & 7, tile = pair.gate >> 1;
    const float half = pair.gate == 2 ? 1.0f : 0.5f; // see sigmoid_of_double
    const uint32_t halved = Op::pack(first * half, second * half);
    const int column = pair.column;
    const int word = (pair.gate & 1) + 2 * (column >> 1 & 1);
    if (pair.layer == 0 && !pair.recurrent) {
        const int s = column >> 4, q = column >> 2 & 3;
        forward[(((warp * 2 + s) * 2 + tile) * 32 + 4 * g + q) * 4 + word] = halved;
        return; // x has no gradient
    }
    uint32_t *part = forward + L::kInputPartWords +
                     (pair.layer == 0 ? 0 : L::kPartWords * (pair.recurrent ? 2 : 1));
    const int j = column >> 5, q = column >> 3 & 3, s = column >> 2 & 1;
    part[((((warp * L::kForwardGroups + j) * 2 + s) * 2 + tile) * 32 + 4 * g + q) * 4 + word] =
        halved;

    // Transposed: row = column of W, k = 4 unit + gate, so a pair's halves go to two rows.
    const int group = pair.unit >> 3, bq = pair.unit >> 1 & 3, bs = pair.unit & 1;
    const int column_warp = column >> 3;
    const uint32_t both = Op::pack(first, second);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const int lane = 4 * ((column & 7) + e) + bq;
        uint32_t at; // in words
        if (pair.layer == 0) {
            at = ((column_warp * L::kBackwardGroups + group) * 32 + lane) * 4 + bs * 2 + tile;
        } else {
            at = L::kPartWords +
                 (((column_warp * L::kBackwardGroups + group) * 2 + bs) * 32 + lane) * 4 +
                 (pair.recurrent ? 0 : 1) + 2 * tile;
        }
        reinterpret_cast<uint16_t *>(backward)[at * 2 + (pair.gate & 1)] =
            (uint16_t)(e ? both >> 16 : both);
    }
}

// State of one model, in device memory.
struct ModelState {
    float *parameters, *exp_avg, *exp_avg_sq;
    uint32_t *forward_weights, *backward_weights;
    const uint32_t *partial;
    const float *bias, *head;
};

__device__ __forceinline__ void load_pair(const ModelState &model, const WeightPair &pair,
                                          float (&w)[2], float (&m)[2], float (&v)[2]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const bool has = e ? pair.has_second : pair.has_first;
        w[e] = has ? model.parameters[pair.parameter + e] : 0.0f;
        m[e] = has ? model.exp_avg[pair.parameter + e] : 0.0f;
        v[e] = has ? model.exp_avg_sq[pair.parameter + e] : 0.0f;
    }
}

// The weights as fragments, before the first step.
template <class L, class Op>
__device__ __forceinline__ void pack_weights(const ModelState &model, int words, int features,
                                             int thread, int threads) {
    for (int word = thread; word < words; word += threads) {
        const WeightPair pair = weight_pair<L>(word, features);
        pack_pair<L, Op>(pair, pair.has_first ? model.parameters[pair.parameter] : 0.0f,
                         pair.has_second ? model.parameters[pair.parameter + 1] : 0.0f,
                         model.forward_weights, model.backward_weights);
    }
}

// kPairs pairs a thread at once, so that the loads of a small grid overlap.
template <class L, class Op, int kPairs>
__device__ __forceinline__ void update_weights(const ModelState &model, const Adam &adam, int words,
                                               int features, int pieces, int thread, int threads) {
#pragma unroll 1
    for (int first = thread; first < words; first += kPairs * threads) {
        float gradient[kPairs][2];
        const uint32_t *source[kPairs];
#pragma unroll
        for (int k = 0; k < kPairs; ++k) {
            gradient[k][0] = gradient[k][1] = 0.0f;
            source[k] = model.partial + min(first + k * threads, words - 1);
        }
        float w[kPairs][2], m[kPairs][2], v[kPairs][2];
        if (kPairs == 1) { // a large grid: these wait beside the gradients
            load_pair(model, weight_pair<L>(first, features), w[0], m[0], v[0]);
        }
        constexpr int kInFlight = kPairs == 1 ? 32 : 8; // pieces at once; those beyond are zero
        for (int piece = 0; piece < pieces; piece += kInFlight) {
            uint32_t v[kInFlight][kPairs];
#pragma unroll
            for (int i = 0; i < kInFlight; ++i) {
#pragma unroll
                for (int k = 0; k < kPairs; ++k) {
                    v[i][k] =
                        piece + i < pieces ? __ldcg(source[k] + (size_t)(piece + i) * words) : 0;
                }
            }
#pragma unroll
            for (int i = 0; i < kInFlight; ++i) {
#pragma unroll
                for (int k = 0; k < kPairs; ++k) {
                    const float2 g = Op::unpack(v[i][k]);
                    gradient[k][0] += g.x;
                    gradient[k][1] += g.y;
                }
            }
        }
#pragma unroll 1
        for (int k = 0; k < kPairs; ++k) {
            const int word = first + k * threads;
            float g[2] = {gradient[0][0], gradient[0][1]};
#pragma unroll
            for (int i = 1; i < kPairs; ++i) { // no run-time index into registers
                g[0] = k == i ? gradient[i][0] : g[0];
                g[1] = k == i ? gradient[i][1] : g[1];
            }
            const WeightPair pair = weight_pair<L>(word, features);
            if (word >= words || !pair.has_first) {
                continue;
            }
            if (kPairs > 1) {
                load_pair(model, pair, w[0], m[0], v[0]);
            }
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                if (e == 0 || pair.has_second) {
                    adam_update(adam, g[e] * adam.inv_scale, w[0][e], m[0][e], v[0][e]);
                    model.parameters[pair.parameter + e] = w[0][e];
                    model.exp_avg[pair.parameter + e] = m[0][e];
                    model.exp_avg_sq[pair.parameter + e] = v[0][e];
                }
            }
            pack_pair<L, Op>(pair, w[0][0], w[0][1], model.forward_weights, model.backward_weights);
        }
    }
}

// Biases and the head: four lanes share the sum of one gradient. The two biases of a gate have the
// same gradient and different histories. `thread` and `threads` are multiples of a warp apart.
template <class L>
__device__ __forceinline__ void update_vectors(const ModelState &model, const Adam &adam,
                                               int layers, int features, int tiles, int pieces,
                                               int thread, int threads) {
    const int gates = 4 * L::kHidden, biases = layers * gates;
    const int count = 4 * (biases + L::kHidden + 1);
    for (int i = thread; i < (count + 31) / 32 * 32; i += threads) {
        const int item = i >> 2, lane = i & 3;
        float sum = 0.0f;
        if (i < count) {
            const bool is_bias = item < biases;
            const float *source = is_bias ? model.bias + item : model.head + item - biases;
            const int stride = is_bias ? biases : L::kHidden + 2;
            const int terms = is_bias ? pieces : tiles;
            constexpr int kInFlight = 16;
            for (int first = lane; first < terms; first += 4 * kInFlight) {
                float v[kInFlight];
#pragma unroll
                for (int k = 0; k < kInFlight; ++k) {
                    const int term = first + 4 * k;
                    v[k] = term < terms ? __ldcg(source + (size_t)term * stride) : 0.0f;
                }
#pragma unroll
                for (int k = 0; k < kInFlight; ++k) {
                    sum += v[k];
                }
            }
            sum *= is_bias ? adam.inv_scale : 1.0f;
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (i >= count || lane > 1) {
            continue;
        }
        int parameter;
        if (item < biases) {
            const int layer = item / gates; // lane 0: bias_ih, lane 1: bias_hh
            parameter = layer_offsets(layer, features, L::kHidden).bias + item - layer * gates +
                        lane * gates;
        } else if (lane == 0) {
            parameter = head_offset(features, L::kHidden, layers) + item - biases;
        } else {
            continue;
        }
        adam_update(adam, sum, model.parameters[parameter], model.exp_avg[parameter],
                    model.exp_avg_sq[parameter]);
    }
}

} // namespace rp_lstm
