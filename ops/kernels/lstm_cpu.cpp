#include "kernels/lstm_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace rp {
namespace {

// The same source, compiled for each of these; chosen once, when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define RP_EACH_ISA __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RP_EACH_ISA
#endif
#define RP_INLINE static inline __attribute__((always_inline))

constexpr int64_t lanes = 16;
constexpr int64_t slice = 2 * lanes; // windows computed together, one a lane
typedef float vec __attribute__((vector_size(lanes * sizeof(float)), aligned(4)));
typedef int32_t ivec __attribute__((vector_size(lanes * sizeof(float)), aligned(4)));

RP_INLINE int64_t padded(int64_t count) { return (count + lanes - 1) / lanes * lanes; }

// exp(x) for x <= 0: 2^r by a polynomial of degree 6 (Taylor; error below 1 ulp on
// |r| <= 0.35), 2^n in the exponent bits.
RP_INLINE void exp_negative(vec &x) {
    const vec low = vec{} - 87.0f;
    x = x < low ? low : x;
    const vec shifter = vec{} + 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
    const vec n = (x * 1.44269504088896341f + shifter) - shifter;
    // ln 2 in two parts, the first exact in products with n
    const vec r = (x - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;
    vec p = vec{} + 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const ivec exponent = __builtin_convertvector(n, ivec) + 127;
    const ivec bits = exponent << 23;
    vec scale;
    std::memcpy(&scale, &bits, sizeof scale);
    x = p * scale;
}

// 1 / (1 + exp(-x)), from exp of a non-positive number on both sides.
RP_INLINE void sigmoid(vec &x) {
    const vec zero = vec{};
    vec e = x < zero ? x : -x;
    exp_negative(e);
    const vec small = e / (1.0f + e);
    x = x < zero ? small : 1.0f / (1.0f + e);
}

// tanh(x): a Taylor polynomial near 0, where the quotient would cancel, (1-e)/(1+e) elsewhere.
RP_INLINE void hyperbolic_tangent(vec &x) {
    const vec zero = vec{};
    const vec magnitude = x < zero ? -x : x;
    vec e = magnitude * -2.0f;
    exp_negative(e);
    vec far = (1.0f - e) / (1.0f + e);
    far = x < zero ? -far : far;
    const vec s = x * x;
    vec near = vec{} + -0.0088632355f;
    near = near * s + 0.021869488f;
    near = near * s + -0.053968254f;
    near = near * s + 0.13333333f;
    near = near * s + -0.33333333f;
    near = near * s * x + x;
    x = magnitude < vec{} + 0.3f ? near : far;
}

RP_INLINE void load(vec &out, const float *from) { std::memcpy(&out, from, sizeof out); }
RP_INLINE void store(float *to, const vec &value) { std::memcpy(to, &value, sizeof value); }

// i, f, g, o (pre-activations) and c -> c, h.
RP_INLINE void update_cell(vec &i, vec &f, vec &g, vec &o, vec &c, vec &h) {
    sigmoid(i);
    sigmoid(f);
    hyperbolic_tangent(g);
    sigmoid(o);
    c = f * c + i * g;
    h = c;
    hyperbolic_tangent(h);
    h = o * h;
}

// One layer, one time step, `slice` windows with a window a lane.
// block [H][K + H][4], bias [4][padded H], x [K][slice], h_old, h_new, c [H][slice].
RP_EACH_ISA void step_slice(const float *block, const float *bias, int64_t K, int64_t H,
                            const float *x, const float *h_old, float *h_new, float *c) {
    for (int64_t unit = 0; unit < H; ++unit) {
        vec gate[4][2];
        for (int g = 0; g < 4; ++g) {
            gate[g][0] = gate[g][1] = vec{} + bias[g * padded(H) + unit];
        }
        const float *w = block + unit * (K + H) * 4;
        for (int64_t k = 0; k < K + H; ++k, w += 4) {
            const float *row = k < K ? x + k * slice : h_old + (k - K) * slice;
            vec first, second;
            load(first, row);
            load(second, row + lanes);
#pragma GCC unroll 4
            for (int g = 0; g < 4; ++g) {
                gate[g][0] += first * w[g];
                gate[g][1] += second * w[g];
            }
        }
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            vec cell, hidden;
            float *at = c + unit * slice + half * lanes;
            load(cell, at);
            update_cell(gate[0][half], gate[1][half], gate[2][half], gate[3][half], cell, hidden);
            store(at, cell);
            store(h_new + unit * slice + half * lanes, hidden);
        }
    }
}

// gates [G padded] += rows [K][G padded] times x [K], with the gates in the lanes. Eight vectors of
// gates stay in registers over all of k.
RP_EACH_ISA void multiply_rows(float *gates, const float *rows, const float *x, int64_t K,
                               int64_t G) {
    for (int64_t first = 0; first < G; first += 8 * lanes) {
        const int64_t vectors = std::min<int64_t>(8, (G - first) / lanes);
        if (vectors == 8) {
            vec sum[8];
#pragma GCC unroll 8
            for (int v = 0; v < 8; ++v) {
                load(sum[v], gates + first + v * lanes);
            }
            const float *row = rows + first;
            for (int64_t k = 0; k < K; ++k, row += G) {
#pragma GCC unroll 8
                for (int v = 0; v < 8; ++v) {
                    vec weight;
                    load(weight, row + v * lanes);
                    sum[v] += weight * x[k];
                }
            }
#pragma GCC unroll 8
            for (int v = 0; v < 8; ++v) {
                store(gates + first + v * lanes, sum[v]);
            }
            continue;
        }
        for (int64_t v = 0; v < vectors; ++v) {
            vec sum;
            float *at = gates + first + v * lanes;
            load(sum, at);
            for (int64_t k = 0; k < K; ++k) {
                vec weight;
                load(weight, rows + k * G + first + v * lanes);
                sum += weight * x[k];
            }
            store(at, sum);
        }
    }
}

// gates: i, f, g, o, [padded H] each; c, h [padded H].
RP_EACH_ISA void update_cells(const float *gates, float *c, float *h, int64_t padded_hidden) {
    for (int64_t unit = 0; unit < padded_hidden; unit += lanes) {
        vec i, f, g, o, cell, hidden;
        load(i, gates + unit);
        load(f, gates + padded_hidden + unit);
        load(g, gates + 2 * padded_hidden + unit);
        load(o, gates + 3 * padded_hidden + unit);
        load(cell, c + unit);
        update_cell(i, f, g, o, cell, hidden);
        store(c + unit, cell);
        store(h + unit, hidden);
    }
}

} // namespace

LstmCpu::LstmCpu(const LstmCpuShape &shape, const float *parameters, const float *running_mean,
                 const float *running_var, float eps, float negative_slope)
    : shape_(shape), negative_slope_(negative_slope) {
    const int64_t H = shape.hidden, P = padded(H);
    for (int32_t l = 0; l < shape.layers; ++l) {
        Layer layer;
        layer.inputs = l == 0 ? shape.features : shape.hidden;
        const int64_t K = layer.inputs;
        const float *input_weight = parameters, *hidden_weight = parameters + 4 * H * K;
        const float *input_bias = hidden_weight + 4 * H * H, *hidden_bias = input_bias + 4 * H;
        layer.block.resize(static_cast<size_t>(H * (K + H) * 4));
        layer.rows.assign(static_cast<size_t>((K + H) * 4 * P), 0.0f);
        layer.bias.assign(static_cast<size_t>(4 * P), 0.0f);
        for (int64_t gate = 0; gate < 4; ++gate) {
            for (int64_t unit = 0; unit < H; ++unit) {
                const int64_t row = gate * H + unit;
                for (int64_t k = 0; k < K + H; ++k) {
                    const float weight = k < K ? input_weight[row * K + k]
                                               : hidden_weight[row * H + k - K];
                    layer.block[static_cast<size_t>((unit * (K + H) + k) * 4 + gate)] = weight;
                    layer.rows[static_cast<size_t>(k * 4 * P + gate * P + unit)] = weight;
                }
                layer.bias[static_cast<size_t>(gate * P + unit)] =
                    input_bias[row] + hidden_bias[row];
            }
        }
        parameters = hidden_bias + 4 * H;
        layers_.push_back(std::move(layer));
    }
    for (int64_t unit = 0; unit < H; ++unit) {
        const float inverse = 1.0f / std::sqrt(running_var[unit] + eps);
        scale_.push_back(inverse);
        shift_.push_back(-running_mean[unit] * inverse);
    }
    head_.assign(parameters, parameters + H + 1);
}

LstmCpu::Scratch::Scratch(const LstmCpuShape &shape) {
    const int64_t widest = std::max<int64_t>(padded(shape.hidden), shape.features);
    input.resize(static_cast<size_t>(shape.time_steps * widest * slice));
    hidden.resize(static_cast<size_t>(2 * shape.layers * padded(shape.hidden) * slice));
    cell.resize(static_cast<size_t>(shape.layers * padded(shape.hidden) * slice));
    projected.resize(static_cast<size_t>(shape.time_steps * 4 * padded(shape.hidden)));
}

// A window a lane: both layers step by step.
void LstmCpu::run_slice(float *out, Scratch &scratch, const float *features,
                        const int32_t *window_ends, int64_t count) const {
    const int64_t F = shape_.features, T = shape_.time_steps, H = shape_.hidden;
    for (int64_t lane = 0; lane < slice; ++lane) {
        // Lanes past the end repeat the last window; their results are not read.
        const int64_t first = window_ends[std::min(lane, count - 1)] - T + 1;
        for (int64_t i = 0; i < T * F; ++i) {
            scratch.input[static_cast<size_t>(i * slice + lane)] = features[first * F + i];
        }
    }
    std::fill(scratch.hidden.begin(), scratch.hidden.end(), 0.0f);
    std::fill(scratch.cell.begin(), scratch.cell.end(), 0.0f);
    const int64_t size = H * slice;
    for (int64_t t = 0; t < T; ++t) {
        const float *x = scratch.input.data() + t * F * slice;
        for (size_t l = 0; l < layers_.size(); ++l) {
            float *h = scratch.hidden.data() + static_cast<int64_t>(2 * l) * size;
            const Layer &layer = layers_[l];
            step_slice(layer.block.data(), layer.bias.data(), layer.inputs, H, x,
                       h + t % 2 * size, h + (t + 1) % 2 * size,
                       scratch.cell.data() + static_cast<int64_t>(l) * size);
            x = h + (t + 1) % 2 * size;
        }
    }
    const float *h =
        scratch.hidden.data() + (2 * (shape_.layers - 1) + T % 2) * size;
    for (int64_t lane = 0; lane < count; ++lane) {
        float sum = head_.back();
        for (int64_t unit = 0; unit < H; ++unit) {
            const float y = h[unit * slice + lane] * scale_[static_cast<size_t>(unit)] +
                            shift_[static_cast<size_t>(unit)];
            sum += head_[static_cast<size_t>(unit)] * (y > 0 ? y : y * negative_slope_);
        }
        out[lane] = sum;
    }
}

// Gates in the lanes: one window, a layer at a time, its inputs projected for all time steps first.
void LstmCpu::run_single(float *out, Scratch &scratch, const float *features, int32_t end) const {
    const int64_t F = shape_.features, T = shape_.time_steps, H = shape_.hidden, P = padded(H);
    float *sequence = scratch.input.data(); // [T][inputs]
    std::copy_n(features + (end - T + 1) * F, T * F, sequence);
    float *h = scratch.hidden.data(), *c = scratch.cell.data();
    for (const Layer &layer : layers_) {
        float *gates = scratch.projected.data(); // [T][4P]
        for (int64_t t = 0; t < T; ++t) {
            std::copy_n(layer.bias.data(), 4 * P, gates + t * 4 * P);
            multiply_rows(gates + t * 4 * P, layer.rows.data(), sequence + t * layer.inputs,
                          layer.inputs, 4 * P);
        }
        std::fill_n(h, P, 0.0f);
        std::fill_n(c, P, 0.0f);
        for (int64_t t = 0; t < T; ++t) {
            multiply_rows(gates + t * 4 * P, layer.rows.data() + layer.inputs * 4 * P, h, H, 4 * P);
            update_cells(gates + t * 4 * P, c, h, P);
            std::copy_n(h, H, sequence + t * H);
        }
    }
    float sum = head_.back();
    for (int64_t unit = 0; unit < H; ++unit) {
        const auto u = static_cast<size_t>(unit);
        const float y = h[u] * scale_[u] + shift_[u];
        sum += head_[u] * (y > 0 ? y : y * negative_slope_);
    }
    *out = sum;
}

void LstmCpu::run(float *out, Scratch &scratch, const float *features, const int32_t *window_ends,
                  int64_t windows) const {
    // Below this a slice's unused lanes cost more than single windows.
    constexpr int64_t few = 4;
    for (int64_t first = 0; first < windows; first += slice) {
        const int64_t count = std::min(slice, windows - first);
        if (count > few) {
            run_slice(out + first, scratch, features, window_ends + first, count);
            continue;
        }
        for (int64_t w = first; w < first + count; ++w) {
            run_single(out + w, scratch, features, window_ends[w]);
        }
    }
}

} // namespace rp
