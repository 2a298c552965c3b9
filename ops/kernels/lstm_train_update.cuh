// Adam: sums the clusters' gradients in their order, updates, and writes the weights again as
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

// Two neighbouring columns of one weight matrix: one pair of a cluster's partial sums.
struct WeightPair {
    int parameter; // of the first, in the concatenated parameters
    int gate, unit, column;
    int layer;
    bool recurrent, has_first, has_second;
};

template <class L> __device__ __forceinline__ WeightPair weight_pair(int number, int features) {
    // (((block of 8 columns * row groups + row group) * 4 + m) * 32 + lane) * 2 + low/high.
    const int lane = number >> 1 & 31, m = number >> 6 & 3, rest = number >> 8;
    const int row = rest % L::kRowGroups * 64 + m * 16 + (number & 1) * 8 + (lane >> 2);
    const int pair_column = 2 * (lane & 3);
    int block = rest / L::kRowGroups;
    const int inputs = L::input_blocks(features), width = L::kHidden / 8;
    WeightPair pair;
    pair.gate = row & 3;
    pair.unit = row >> 2;
    pair.has_first = pair.has_second = true;
    const int matrix_row = pair.gate * L::kHidden + pair.unit;
    if (block < inputs) {
        pair.layer = 0;
        pair.recurrent = false;
        pair.column = L::feature_at(8 * block + pair_column);
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

// Where the k-th 32 bits of a row go, with kMmas in a group: [group][lane q][mma][half].
template <int kMmas> struct FragmentPlace {
    int group, q, mma, half;
    __device__ __forceinline__ explicit FragmentPlace(int k)
        : group(k / (8 * kMmas)), q(k / (2 * kMmas) & 3), mma(k / 2 % kMmas), half(k & 1) {}
};

__device__ __forceinline__ uint32_t word_of(uint32_t pair, int) {
    return pair;
}
__device__ __forceinline__ uint32_t word_of(uint2 pair, int e) {
    return e ? pair.y : pair.x;
}

// Writes the pair where the forward and the backward pass look for it.
template <class L>
__device__ __forceinline__ void pack_pair(const WeightPair &pair, float first, float second,
                                          uint32_t *forward, uint32_t *backward) {
    using Op = typename L::Operand;
    const int warp = pair.unit >> 3, g = pair.unit & 7, tile = pair.gate >> 1;
    const float half = pair.gate == 2 ? 1.0f : 0.5f; // see sigmoid_of_double
    const auto halved = Op::pack(first * half, second * half);
    const auto put = [&](uint32_t *part, int groups, int mmas, auto at, uint32_t v) {
        part[((((warp * groups + at.group) * mmas + at.mma) * 2 + tile) * 32 + 4 * g + at.q) * 4 +
             (pair.gate & 1) + 2 * at.half] = v;
    };
    if (pair.layer == 0 && !pair.recurrent) { // x, which has no gradient
        const int place = L::feature_place(pair.column);
        const int word = (place >> 9) * 16 + ((place & 63) >> 2);
#pragma unroll
        for (int e = 0; e < L::kBytes / 2; ++e) {
            put(forward, L::kInputGroups, 2, FragmentPlace<2>(word + e), word_of(halved, e));
        }
        return;
    }
    uint32_t *part = forward + L::kInputPartWords +
                     (pair.layer == 0 ? 0 : L::kPartWords * (pair.recurrent ? 2 : 1));
#pragma unroll
    for (int e = 0; e < L::kBytes / 2; ++e) {
        put(part, L::kForwardGroups, L::kHiddenMmas,
            FragmentPlace<L::kHiddenMmas>(pair.column * L::kBytes / 4 + e), word_of(halved, e));
    }
    // Transposed: row = column of W, k = 4 unit + gate, so the columns of a pair go to two rows.
    const int k = 4 * pair.unit + pair.gate;
    const FragmentPlace<2> at(k * L::kBytes / 4);
    const int column_warp = pair.column >> 3;
    const auto both = Op::pack(first, second);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        const int lane = 4 * ((pair.column & 7) + e) + at.q;
        const uint32_t to = // in words
            pair.layer * 2 * L::kPartWords +
            (((column_warp * L::kBackwardGroups + at.group) * 2 + at.mma) * 32 + lane) * 4 +
            (pair.recurrent ? 0 : 1) + 2 * at.half;
        if constexpr (L::kBytes == 2) {
            reinterpret_cast<uint16_t *>(backward)[to * 2 + (k & 1)] =
                (uint16_t)(e ? both >> 16 : both);
        } else {
            backward[to] = word_of(both, e);
        }
    }
}

// State of one model, in device memory.
struct ModelState {
    float *parameters, *exp_avg, *exp_avg_sq;
    uint32_t *forward_weights, *backward_weights;
    const float2 *partial; // [clusters][pairs]
    const float *bias, *head;
    float *loss; // of the step
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
template <class L>
__device__ __forceinline__ void pack_weights(const ModelState &model, int pairs, int features,
                                             int thread, int threads) {
    for (int number = thread; number < pairs; number += threads) {
        const WeightPair pair = weight_pair<L>(number, features);
        pack_pair<L>(pair, pair.has_first ? model.parameters[pair.parameter] : 0.0f,
                     pair.has_second ? model.parameters[pair.parameter + 1] : 0.0f,
                     model.forward_weights, model.backward_weights);
    }
}

template <class L>
__device__ __forceinline__ void update_pair(const ModelState &model, const Adam &adam,
                                            const WeightPair &pair, const float (&gradient)[2],
                                            float (&w)[2], float (&m)[2], float (&v)[2]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        if (e == 0 || pair.has_second) {
            adam_update(adam, gradient[e] * adam.inv_scale, w[e], m[e], v[e]);
            model.parameters[pair.parameter + e] = w[e];
            model.exp_avg[pair.parameter + e] = m[e];
            model.exp_avg_sq[pair.parameter + e] = v[e];
        }
    }
    pack_pair<L>(pair, w[0], w[1], model.forward_weights, model.backward_weights);
}

// Sum of the clusters' gradients of one pair, in their order. A short loop: a longer one would be
// fetched anew each step.
__device__ __forceinline__ void sum_clusters(const float2 *source, int pairs, int clusters,
                                             float (&gradient)[2]) {
    constexpr int kInFlight = 16;
    gradient[0] = gradient[1] = 0.0f;
#pragma unroll 1
    for (int c = 0; c < clusters; c += kInFlight) { // those beyond the last are zero
        float2 v[kInFlight];
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            v[i] = c + i < clusters ? source[(size_t)i * pairs] : float2();
        }
        source += (size_t)kInFlight * pairs;
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            gradient[0] += v[i].x;
            gradient[1] += v[i].y;
        }
    }
}

// The block's shares of the pairs, a pair a thread. wait() ends when all gradients are written, and
// tells whether to skip the step; the first share's weights arrive meanwhile.
template <class L, class Wait>
__device__ __forceinline__ bool update_weights(const ModelState &model, const Adam &adam, int share,
                                               int pairs, int features, int clusters, int thread,
                                               const Wait &wait) {
    bool waits = true, skip = false;
#pragma unroll 1
    for (int first = (int)blockIdx.x * share; waits || first < pairs;
         first += (int)gridDim.x * share) {
        const int number = first + thread;
        const bool has_pair = thread < share && number < pairs;
        const WeightPair pair = weight_pair<L>(has_pair ? number : 0, features);
        float w[2], m[2], v[2], gradient[2];
        load_pair(model, pair, w, m, v);
        if (waits) {
            skip = wait();
            waits = false;
        }
        if (has_pair && pair.has_first && !skip) {
            sum_clusters(model.partial + number, pairs, clusters, gradient);
            update_pair<L>(model, adam, pair, gradient, w, m, v);
        }
    }
    return skip;
}

// Biases, the head and the loss: four lanes share the sum of one gradient, or of squared errors.
// The two biases of a gate have the same gradient and different histories. `thread` and `threads`
// are multiples of a warp apart.
template <class L>
__device__ __forceinline__ void update_vectors(const ModelState &model, const Adam &adam, bool skip,
                                               int layers, int features, int rows, int clusters,
                                               int thread, int threads) {
    const int gates = 4 * L::kHidden, biases = layers * gates;
    const int squares = biases + L::kHidden + 1, count = 4 * (squares + 1);
    for (int i = thread; i < (count + 31) / 32 * 32; i += threads) {
        const int item = i >> 2, lane = i & 3;
        float sum = 0.0f;
        if (i < count) {
            const bool is_bias = item < biases;
            const float *source = is_bias ? model.bias + item : model.head + item - biases;
            const int stride = is_bias ? biases : L::kHidden + 2;
            constexpr int kInFlight = 8;
#pragma unroll 1
            for (int first = lane; first < clusters; first += 4 * kInFlight) {
                float v[kInFlight];
#pragma unroll
                for (int k = 0; k < kInFlight; ++k) {
                    const int c = first + 4 * k;
                    v[k] = c < clusters ? __ldcg(source + (size_t)c * stride) : 0.0f;
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
        if (item == squares && lane == 0) {
            *model.loss = sum / (float)rows;
        }
        if (item >= squares || lane > 1 || skip) {
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
