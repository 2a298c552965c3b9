// Forward of one window: the gates lie in the lanes. Layer by layer: the inputs of all time steps
// are projected together, then the recurrence runs with all gates of a block of units in registers.
#pragma once

#include "kernels/lstm_cpu_vector.h"

namespace rp {
namespace {

#if defined(__AVX512F__)
constexpr int recur_vectors = 4, project_vectors = 4, project_rows = 5;
// Odd time steps walk k downward: W_hh is larger than the first-level cache, and so the part that
// is still there is read first.
constexpr bool alternate_direction = true;
#else
constexpr int recur_vectors = 2, project_vectors = 2, project_rows = 4;
constexpr bool alternate_direction = false;
#endif
constexpr int project_width = project_vectors * lanes;

// gates [rows][4U], one tile of project_width columns: bias + input [rows][K] x weights [K][width].
template <int rows>
RP_INLINE void project_tile(float *gates, int64_t gates_stride, const float *bias,
                            const float *weights, const float *input, int64_t input_stride,
                            int64_t count) {
    vec sum[rows][project_vectors];
    RP_UNROLL
    for (int v = 0; v < project_vectors; ++v) {
        const vec b = load(bias + v * lanes);
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            sum[r][v] = b;
        }
    }
    for (int64_t k = 0; k < count; ++k, weights += project_width) {
        vec w[project_vectors];
        RP_UNROLL
        for (int v = 0; v < project_vectors; ++v) {
            w[v] = load_once(weights + v * lanes);
        }
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            const vec x = broadcast(input[r * input_stride + k]);
            RP_UNROLL
            for (int v = 0; v < project_vectors; ++v) {
                sum[r][v] += x * w[v];
            }
        }
    }
    RP_UNROLL
    for (int r = 0; r < rows; ++r) {
        RP_UNROLL
        for (int v = 0; v < project_vectors; ++v) {
            store(gates + r * gates_stride + v * lanes, sum[r][v]);
        }
    }
}

void project_inputs(float *gates, const LstmCpuLayer &layer, int64_t units, const float *input,
                    int64_t input_stride, int64_t time_steps) {
    const int64_t stride = 4 * units, inputs = layer.inputs;
    for (int64_t column = 0; column < stride; column += project_width) {
        const float *weights = layer.project + column * inputs;
        const float *bias = layer.project_bias + column;
        int64_t t = 0;
        for (; t + project_rows <= time_steps; t += project_rows) {
            project_tile<project_rows>(gates + t * stride + column, stride, bias, weights,
                                       input + t * input_stride, input_stride, inputs);
        }
        for (; t < time_steps; ++t) {
            project_tile<1>(gates + t * stride + column, stride, bias, weights,
                            input + t * input_stride, input_stride, inputs);
        }
    }
}

// h, c [U] of one block of `vectors` vectors of units; gates [4][width] are the projected inputs.
template <int vectors>
RP_INLINE void recur_block(float *h, float *c, const float *gates, const float *weights,
                           const float *h_before, int64_t hidden, bool downward) {
    constexpr int width = vectors * lanes;
    vec sum[4][vectors];
    RP_UNROLL
    for (int g = 0; g < 4; ++g) {
        RP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            sum[g][v] = load(gates + g * width + v * lanes);
        }
    }
    const int64_t direction = downward ? -1 : 1;
    int64_t k = downward ? hidden - 1 : 0;
#pragma GCC unroll 2
    for (int64_t n = 0; n < hidden; ++n, k += direction) {
        const vec x = broadcast(h_before[k]);
        const float *row = weights + k * 4 * width;
        RP_UNROLL
        for (int g = 0; g < 4; ++g) {
            RP_UNROLL
            for (int v = 0; v < vectors; ++v) {
                sum[g][v] += x * load(row + g * width + v * lanes);
            }
        }
    }
    RP_UNROLL
    for (int v = 0; v < vectors; ++v) {
        const vec i = sigmoid(sum[0][v]), f = sigmoid(sum[1][v]);
        const vec g = hyperbolic_tangent(sum[2][v]), o = sigmoid(sum[3][v]);
        const vec cell = f * load(c + v * lanes) + i * g;
        store(c + v * lanes, cell);
        store(h + v * lanes, o * hyperbolic_tangent(cell));
    }
}

// One time step of a layer. h_before is nullptr at the first.
void recur_step(float *h, float *c, const LstmCpuModel &model, const LstmCpuLayer &layer,
                const float *gates, const float *h_before, bool downward) {
    const int64_t hidden = model.shape.hidden, recurrent = h_before ? hidden : 0;
    int64_t unit = 0;
    while (unit < model.units) {
        const int64_t width = lstm_cpu_block_width(unit, model.units, lanes, recur_vectors);
        const float *weights = layer.recur + unit * 4 * hidden;
        if (width == 4 * lanes) {
            recur_block<4>(h + unit, c + unit, gates + unit * 4, weights, h_before, recurrent,
                           downward);
        } else if (width == 2 * lanes) {
            recur_block<2>(h + unit, c + unit, gates + unit * 4, weights, h_before, recurrent,
                           downward);
        } else {
            recur_block<1>(h + unit, c + unit, gates + unit * 4, weights, h_before, recurrent,
                           downward);
        }
        unit += width;
    }
}

void predict_single(float *out, const LstmCpuModel &model, const LstmCpuWork &work,
                    const float *features, int32_t end) {
    const int64_t time_steps = model.shape.time_steps, units = model.units;
    int64_t input_stride = model.shape.features;
    const float *input = features + (end - time_steps + 1) * input_stride;
    const float *h = nullptr;
    float *c = work.c[0];
    for (int64_t l = 0; l < model.shape.layers; ++l) {
        const LstmCpuLayer &layer = model.layer[l];
        project_inputs(work.gates, layer, units, input, input_stride, time_steps);
        for (int64_t unit = 0; unit < units; unit += lanes) {
            store(c + unit, vec{});
        }
        float *sequence = work.sequence[l % 2];
        h = nullptr;
        for (int64_t t = 0; t < time_steps; ++t) {
            recur_step(sequence + t * units, c, model, layer, work.gates + t * 4 * units, h,
                       alternate_direction && t % 2 == 1);
            h = sequence + t * units;
        }
        input = sequence;
        input_stride = units;
    }
    vec sum = {};
    for (int64_t unit = 0; unit < units; unit += lanes) {
        const vec y =
            (load(h + unit) - load(model.norm_mean + unit)) * load(model.norm_inverse_std + unit);
        sum += leaky_relu(y, model.negative_slope) * load(model.head_weight + unit);
    }
    *out = sum_of_lanes(sum) + model.head_bias;
}

} // namespace
} // namespace rp
