// Adam: sums the clusters' gradients in their order, updates, and writes the weights again as
// fragments for the next step. All blocks of a model share the work.
//
//   m += (1 - b1) (g - m)    v += (1 - b2) (g^2 - v)
//   w -= lr / (1 - b1^t)  m / (sqrt(v) / sqrt(1 - b2^t) + eps)
#pragma once

#include "lstm_train_layout.cuh"

namespace rp_lstm {

// What changes from step to step; the rest are constants of the launch.
struct Adam {
    float step_size, inv_sqrt_correction2; // lr / (1 - b1^t), 1 / sqrt(1 - b2^t)
    float inv_scale;                       // of the gradients
};

__device__ __forceinline__ float bias_correction(double log_beta, int64_t t) {
    return -expm1f((float)((double)t * log_beta));
}

__device__ __forceinline__ void adam_update(const AdamConstants &c, const Adam &a, float gradient,
                                            float &weight, float &m, float &v) {
    m = fmaf(m, c.beta1, c.one_minus_beta1 * gradient);
    v = fmaf(v, c.beta2, c.one_minus_beta2 * gradient * gradient);
    weight -= __fdividef(a.step_size * m, fmaf(sqrtf(v), a.inv_sqrt_correction2, c.eps));
}

// Where the k-th 32 bits of a row go, with kMmas in a group: [group][lane q][mma][half].
template <int kMmas> struct FragmentPlace {
    int group, q, mma, half;
    __device__ __forceinline__ explicit FragmentPlace(int k)
        : group(k / (8 * kMmas)), q(k / (2 * kMmas) & 3), mma(k / 2 % kMmas), half(k & 1) {}
};

template <class L> __device__ PairPlace pair_place(int number, int features) {
    // (((block of 8 columns * row groups + row group) * 4 + m) * 32 + lane) * 2 + low/high.
    const int lane = number >> 1 & 31, m = number >> 6 & 3, rest = number >> 8;
    const int row = rest % L::kRowGroups * 64 + m * 16 + (number & 1) * 8 + (lane >> 2);
    const int pair_column = 2 * (lane & 3), gate = row & 3, unit = row >> 2;
    const int matrix_row = gate * L::kHidden + unit;
    const auto word = [&](int groups, int mmas, auto at) {
        return (((((unit >> 3) * groups + at.group) * mmas + at.mma) * 2 + (gate >> 1)) * 32 +
                4 * (unit & 7) + at.q) *
                   4 +
               (gate & 1) + 2 * at.half;
    };
    PairPlace place;
    place.flags = PairPlace::kHasSecond | (gate == 2 ? 0 : PairPlace::kHalved);
    int block = rest / L::kRowGroups;
    const int inputs = L::input_blocks(features), width = L::kHidden / 8;
    if (block < inputs) { // x, which has no gradient
        const int column = L::feature_at(8 * block + pair_column);
        place.parameter = column < features ? matrix_row * features + column : -1;
        place.flags &= column + 1 < features ? ~0 : ~PairPlace::kHasSecond;
        const auto of_feature = [&](int feature) {
            const int at = L::feature_place(feature);
            return word(L::kInputGroups, 2, FragmentPlace<2>((at >> 9) * 16 + ((at & 63) >> 2)));
        };
        place.forward = of_feature(column);
        const int run =
            L::has_low_parts(features) && column < features ? L::input_run(features) : 0;
        place.set_input(of_feature(column + run) - place.forward,
                        of_feature(column + 2 * run) - place.forward);
        return place;
    }
    block -= inputs;
    const int layer = block < width ? 0 : 1;
    block -= layer * width;
    const bool recurrent = layer == 0 || block >= width;
    block -= layer == 1 && recurrent ? width : 0;
    const int column = 8 * block + pair_column;
    const ParameterOffsets at = layer_offsets(layer, features, L::kHidden);
    place.parameter = (recurrent ? at.recurrent : at.input) + matrix_row * L::kHidden + column;
    const int part = layer == 0 ? 0 : recurrent ? 2 : 1; // after x's
    place.forward = L::kPlanes * (L::kInputPartWords + part * L::kPartWords) +
                    word(L::kForwardGroups, L::kHiddenMmas,
                         FragmentPlace<L::kHiddenMmas>(column * L::kBytes / 4));
    // Transposed: row = column of W, k = 4 unit + gate, so the columns of a pair go to two rows.
    const int k = 4 * unit + gate, in_word = L::kBytes == 2 ? 2 : 1; // elements
    const FragmentPlace<2> from(k * L::kBytes / 4);
    const int to = (((column >> 3) * L::kBackwardGroups + from.group) * 2 + from.mma) * 32 +
                   4 * (column & 7) + from.q;
    place.backward =
        (layer * L::kPlanes * 2 * L::kPartWords + to * 4 + (recurrent ? 0 : 1) + 2 * from.half) *
            in_word +
        k % in_word;
    return place;
}

__device__ __forceinline__ PairPlace load_place(const PairPlace *place) {
    const int4 v = __ldcg((const int4 *)place);
    return {v.x, v.y, v.z, v.w};
}

__device__ __forceinline__ uint32_t word_of(uint32_t pair, int) {
    return pair;
}
__device__ __forceinline__ uint32_t word_of(uint2 pair, int e) {
    return e ? pair.y : pair.x;
}

// State of one model, in device memory.
struct ModelState {
    float *parameters, *exp_avg, *exp_avg_sq;
    uint32_t *forward_weights, *backward_weights;
    PairPlace *places;     // [pairs], of all models
    const float2 *partial; // [clusters][pairs]
    const float *bias, *head;
    float *loss; // of the step
};

// Writes a pair among the fragments of forward.
template <class L>
__device__ __forceinline__ void pack_forward(uint32_t *words, float first, float second,
                                             int plane) {
    const auto pair = L::Operand::pack(first, second, plane);
#pragma unroll
    for (int e = 0; e < L::kBytes / 2; ++e) {
        words[2 * e] = word_of(pair, e);
    }
}
// Writes the pair where the forward and the backward pass look for it.
template <class L>
__device__ __forceinline__ void pack_pair(const ModelState &model, const PairPlace &place,
                                          float first, float second) {
    using Op = typename L::Operand;
    const float half = place.flags & PairPlace::kHalved ? 0.5f : 1.0f; // see sigmoid_of_double
    const bool of_input = place.backward < 0;
    uint32_t *const words = model.forward_weights + place.forward;
#pragma unroll
    for (int p = 0; p < L::kPlanes; ++p) {
        pack_forward<L>(words + p * (of_input ? L::kInputPartWords : L::kPartWords), first * half,
                        second * half, p);
    }
    if (of_input) {
        if (place.low_part() > 0) {
            pack_forward<L>(words + place.low_part(), first * half, second * half, 1);
            pack_forward<L>(words + place.high_again(), first * half, second * half, 0);
        }
        return;
    }
#pragma unroll
    for (int p = 0; p < L::kPlanes; ++p) {
        const auto both = Op::pack(first, second, p);
        uint32_t *const plane = model.backward_weights + p * 2 * L::kPartWords;
        if constexpr (L::kBytes == 2) {
            uint16_t *const elements = (uint16_t *)plane + place.backward;
            elements[0] = (uint16_t)both;
            elements[32] = (uint16_t)(both >> 16);
        } else {
            uint32_t *const elements = plane + place.backward;
            elements[0] = word_of(both, 0);
            elements[16] = word_of(both, 1);
        }
    }
}

// The places of all pairs, and the weights as fragments, before the first step. Every model of a
// launch writes the same places, which it then finds whatever the others have done.
template <class L>
__device__ __forceinline__ void place_weights(const ModelState &model, int pairs, int features,
                                              int thread, int threads) {
    for (int number = thread; number < pairs; number += threads) {
        const PairPlace place = pair_place<L>(number, features);
        model.places[number] = place;
        if (place.has_first()) { // else zeros, or the low parts of others
            pack_pair<L>(model, place, model.parameters[place.parameter],
                         place.has_second() ? model.parameters[place.parameter + 1] : 0.0f);
        }
    }
}

template <class L>
__device__ __forceinline__ void update_pair(const ModelState &model, const AdamConstants &constants,
                                            const Adam &adam, const PairPlace &place,
                                            const float (&gradient)[2], float (&w)[2],
                                            float (&m)[2], float (&v)[2]) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
        if (e == 0 || place.has_second()) {
            adam_update(constants, adam, gradient[e] * adam.inv_scale, w[e], m[e], v[e]);
            model.parameters[place.parameter + e] = w[e];
            model.exp_avg[place.parameter + e] = m[e];
            model.exp_avg_sq[place.parameter + e] = v[e];
        }
    }
    pack_pair<L>(model, place, w[0], w[1]);
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
            v[i] = c + i < clusters ? __ldcg(source + (size_t)i * pairs) : float2();
        }
        source += (size_t)kInFlight * pairs;
#pragma unroll
        for (int i = 0; i < kInFlight; ++i) {
            gradient[0] += v[i].x;
            gradient[1] += v[i].y;
        }
    }
}

// The block's shares of the pairs, a pair a thread. wait() ends when all gradients are written; the
// first share's weights arrive meanwhile. skips() tells whether to skip the step; it is looked at
// when the gradients are there, as it comes no earlier than these.
template <class L, class Wait, class Skips>
__device__ __forceinline__ void
update_weights(const ModelState &model, const AdamConstants &constants, const Adam &adam, int share,
               int pairs, int clusters, int thread, const Wait &wait, const Skips &skips) {
    bool waits = true;
#pragma unroll 1
    for (int first = (int)blockIdx.x * share; waits || first < pairs;
         first += (int)gridDim.x * share) {
        const int number = first + thread;
        PairPlace place = {-1, 0, 0, 0};
        if (thread < share && number < pairs) {
            place = load_place(model.places + number);
        }
        float w[2], m[2], v[2], gradient[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const bool has = e ? place.has_second() : place.has_first();
            w[e] = has ? model.parameters[place.parameter + e] : 0.0f;
            m[e] = has ? model.exp_avg[place.parameter + e] : 0.0f;
            v[e] = has ? model.exp_avg_sq[place.parameter + e] : 0.0f;
        }
        if (waits) {
            wait();
            waits = false;
        }
        if (place.has_first()) {
            sum_clusters(model.partial + number, pairs, clusters, gradient);
            if (!skips()) {
                update_pair<L>(model, constants, adam, place, gradient, w, m, v);
            }
        }
    }
}

// Biases, the head and the loss: four lanes share the sum of one gradient, or of squared errors.
// The two biases of a gate have the same gradient and different histories. `thread` and `threads`
// are multiples of a warp apart.
template <class L>
__device__ __forceinline__ void
update_vectors(const ModelState &model, const AdamConstants &constants, const Adam &adam, bool skip,
               int layers, int features, int rows, int clusters, int thread, int threads) {
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
            const int layer = item / gates, unit = item % gates >> 2, gate = item & 3;
            parameter = layer_offsets(layer, features, L::kHidden).bias + gate * L::kHidden + unit +
                        lane * gates; // lane 0: bias_ih, lane 1: bias_hh
        } else if (lane == 0) {
            parameter = head_offset(features, L::kHidden, layers) + item - biases;
        } else {
            continue;
        }
        adam_update(constants, adam, sum, model.parameters[parameter], model.exp_avg[parameter],
                    model.exp_avg_sq[parameter]);
    }
}

} // namespace rp_lstm
