// Forward of a few windows, for inference: the gates lie in the lanes, a vector of units' four
// gates side by side. Several windows share each weight that is loaded. One window alone has the
// inputs of all its time steps projected together, layer by layer, and then the recurrence with as
// many gates in registers as there are.
//
// Policy: every path adds in the same order, so that a window's prediction has the same bits
// whatever windows are run beside it.
#pragma once

#include "kernels/lstm_cpu_vector.h"

namespace rp {
namespace {

#if defined(__AVX512F__)
constexpr int tile_rows = 4, recur_vectors = 4;
#elif defined(__AVX2__)
constexpr int tile_rows = 3, recur_vectors = 2;
#else
constexpr int tile_rows = 2, recur_vectors = 2;
#endif

// Odd time steps walk k downward where that is faster: W_hh is larger than the first-level cache,
// and so the part that is still there is read first.
RP_INLINE bool goes_down(int64_t t) {
    return lanes == 16 && t % 2 == 1;
}

// sum [rows][4] += input [rows][K] x weights [K][4][V].
template <int rows>
RP_INLINE void accumulate_rows(vec (&sum)[rows][4], const float *weights, const float *input,
                               int64_t input_stride, int64_t count, bool downward) {
    const int64_t direction = downward ? -1 : 1;
    int64_t k = downward ? count - 1 : 0;
    weights += 4 * lanes * k;
    for (int64_t n = 0; n < count; ++n, k += direction, weights += direction * 4 * lanes) {
        vec x[rows];
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            x[r] = broadcast(input[r * input_stride + k]);
        }
        RP_UNROLL
        for (int g = 0; g < 4; ++g) {
            const vec w = load_once(weights + g * lanes);
            RP_UNROLL
            for (int r = 0; r < rows; ++r) {
                sum[r][g] += x[r] * w;
            }
        }
    }
}

template <int rows> RP_INLINE void begin_rows(vec (&sum)[rows][4], const float *bias) {
    RP_UNROLL
    for (int g = 0; g < 4; ++g) {
        const vec b = load(bias + g * lanes);
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            sum[r][g] = b;
        }
    }
}

// h, c: one vector of units.
RP_INLINE void step_cell(float *h, float *c, const vec (&gate)[4]) {
    const vec i = sigmoid(gate[0]), f = sigmoid(gate[1]);
    const vec g = hyperbolic_tangent(gate[2]), o = sigmoid(gate[3]);
    const vec cell = f * load(c) + i * g;
    store(c, cell);
    store(h, o * hyperbolic_tangent(cell));
}

// y = (h - mean) / std by the running statistics; head . leaky_relu(y) + bias of one window's h
// [U].
float head_of(const float *h, const LstmCpuModel &model) {
    vec sum = {};
    for (int64_t unit = 0; unit < model.units; unit += lanes) {
        const vec y =
            (load(h + unit) - load(model.norm_mean + unit)) * load(model.norm_inverse_std + unit);
        sum += leaky_relu(y, model.negative_slope) * load(model.head_weight + unit);
    }
    return sum_of_lanes(sum) + model.head_bias;
}

// ---- several windows ----------------------------------------------------------------------------

// Where a layer's step reads and writes; a row a window.
struct RowArrays {
    const float *input; // [count][input_stride]
    int64_t input_stride;
    const float *h_before; // [count][U], nullptr at the first time step
    float *h, *c;          // [count][U]
    bool downward;
};

template <int rows>
RP_INLINE void step_tile(const RowArrays &arrays, int64_t row, const LstmCpuLayer &layer,
                         int64_t unit, const LstmCpuModel &model) {
    const int64_t hidden = model.shape.hidden, units = model.units;
    vec gate[rows][4];
    begin_rows(gate, layer.gate_bias + 4 * unit);
    accumulate_rows(gate, layer.project + 4 * unit * layer.inputs,
                    arrays.input + row * arrays.input_stride, arrays.input_stride, layer.inputs,
                    false);
    if (arrays.h_before) {
        accumulate_rows(gate, layer.recur + 4 * unit * hidden, arrays.h_before + row * units, units,
                        hidden, arrays.downward);
    }
    RP_UNROLL
    for (int r = 0; r < rows; ++r) {
        const int64_t at = (row + r) * units + unit;
        step_cell(arrays.h + at, arrays.c + at, gate[r]);
    }
}

// The rows that are left after the whole tiles: `left` of 0..rows.
template <int rows>
RP_INLINE void step_rest(const RowArrays &arrays, int64_t row, int64_t left,
                         const LstmCpuLayer &layer, int64_t unit, const LstmCpuModel &model) {
    if (left == rows) {
        step_tile<rows>(arrays, row, layer, unit, model);
    } else if constexpr (rows > 1) {
        step_rest<rows - 1>(arrays, row, left, layer, unit, model);
    }
}

void step_rows(const RowArrays &arrays, int64_t count, const LstmCpuLayer &layer,
               const LstmCpuModel &model) {
    for (int64_t unit = 0; unit < model.units; unit += lanes) {
        int64_t row = 0;
        for (; row + tile_rows <= count; row += tile_rows) {
            step_tile<tile_rows>(arrays, row, layer, unit, model);
        }
        step_rest<tile_rows - 1>(arrays, row, count - row, layer, unit, model);
    }
}

// All layers go through a time step before the next.
void predict_rows(float *out, const LstmCpuModel &model, const LstmCpuWork &work,
                  const LstmCpuSlice &windows) {
    const int64_t time_steps = model.shape.time_steps, features = model.shape.features;
    const int64_t count = windows.count, size = count * model.units, window = time_steps * features;
    for (int64_t r = 0; r < count; ++r) {
        const float *from = windows.features + (windows.ends[r] - time_steps + 1) * features;
        for (int64_t k = 0; k < window; ++k) {
            work.x[r * window + k] = from[k];
        }
    }
    for (int64_t l = 0; l < model.shape.layers; ++l) {
        fill_zero(work.c[l], size);
    }
    const float *h = nullptr;
    for (int64_t t = 0; t < time_steps; ++t) {
        RowArrays arrays = {work.x + t * features, window, nullptr, nullptr, nullptr, goes_down(t)};
        for (int64_t l = 0; l < model.shape.layers; ++l) {
            const bool kept = windows.sequence && l + 1 == model.shape.layers;
            float *states = kept ? windows.sequence : work.h[l];
            arrays.h_before = t > 0 ? states + (kept ? t - 1 : (t - 1) % 2) * size : nullptr;
            arrays.h = states + (kept ? t : t % 2) * size;
            arrays.c = work.c[l];
            step_rows(arrays, count, model.layer[l], model);
            arrays.input = h = arrays.h;
            arrays.input_stride = model.units;
        }
    }
    for (int64_t r = 0; out && r < count; ++r) {
        out[r] = head_of(h + r * model.units, model);
    }
}

// ---- one window ---------------------------------------------------------------------------------

// gates [rows][4U], one vector of units: bias + input [rows][K] x weights [K][4][V].
template <int rows>
RP_INLINE void project_tile(float *gates, int64_t gates_stride, const float *bias,
                            const float *weights, const float *input, int64_t input_stride,
                            int64_t count) {
    vec sum[rows][4];
    begin_rows(sum, bias);
    accumulate_rows(sum, weights, input, input_stride, count, false);
    RP_UNROLL
    for (int r = 0; r < rows; ++r) {
        RP_UNROLL
        for (int g = 0; g < 4; ++g) {
            store(gates + r * gates_stride + g * lanes, sum[r][g]);
        }
    }
}

void project_inputs(float *gates, const LstmCpuLayer &layer, int64_t units, const float *input,
                    int64_t input_stride, int64_t time_steps) {
    const int64_t stride = 4 * units, inputs = layer.inputs;
    for (int64_t column = 0; column < stride; column += 4 * lanes) {
        const float *weights = layer.project + column * inputs;
        const float *bias = layer.gate_bias + column;
        int64_t t = 0;
        for (; t + tile_rows <= time_steps; t += tile_rows) {
            project_tile<tile_rows>(gates + t * stride + column, stride, bias, weights,
                                    input + t * input_stride, input_stride, inputs);
        }
        for (; t < time_steps; ++t) {
            project_tile<1>(gates + t * stride + column, stride, bias, weights,
                            input + t * input_stride, input_stride, inputs);
        }
    }
}

// h, c of `vectors` vectors of units; gates [vectors][4][V] are the projected inputs, weights
// [vectors][H][4][V].
template <int vectors>
RP_INLINE void recur_block(float *h, float *c, const float *gates, const float *weights,
                           const float *h_before, int64_t hidden, bool downward) {
    vec sum[vectors][4];
    const float *row[vectors];
    RP_UNROLL
    for (int v = 0; v < vectors; ++v) {
        row[v] = weights + v * 4 * lanes * hidden;
        RP_UNROLL
        for (int g = 0; g < 4; ++g) {
            sum[v][g] = load(gates + (4 * v + g) * lanes);
        }
    }
    const int64_t recurrent = h_before ? hidden : 0, direction = downward ? -1 : 1;
    int64_t k = downward ? hidden - 1 : 0;
#pragma GCC unroll 2
    for (int64_t n = 0; n < recurrent; ++n, k += direction) {
        const vec x = broadcast(h_before[k]);
        RP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            RP_UNROLL
            for (int g = 0; g < 4; ++g) {
                sum[v][g] += x * load(row[v] + (4 * k + g) * lanes);
            }
        }
    }
    RP_UNROLL
    for (int v = 0; v < vectors; ++v) {
        step_cell(h + v * lanes, c + v * lanes, sum[v]);
    }
}

// One time step of a layer. h_before is nullptr at the first.
void recur_step(float *h, float *c, const LstmCpuModel &model, const LstmCpuLayer &layer,
                const float *gates, const float *h_before, bool downward) {
    const int64_t hidden = model.shape.hidden;
    int64_t unit = 0;
    for (; unit + recur_vectors * lanes <= model.units; unit += recur_vectors * lanes) {
        recur_block<recur_vectors>(h + unit, c + unit, gates + 4 * unit,
                                   layer.recur + 4 * unit * hidden, h_before, hidden, downward);
    }
    for (; unit < model.units; unit += lanes) {
        recur_block<1>(h + unit, c + unit, gates + 4 * unit, layer.recur + 4 * unit * hidden,
                       h_before, hidden, downward);
    }
}

void predict_single(float *out, const LstmCpuModel &model, const LstmCpuWork &work,
                    const float *features, int32_t end) {
    const int64_t time_steps = model.shape.time_steps, units = model.units;
    int64_t input_stride = model.shape.features;
    const float *input = features + (end - time_steps + 1) * input_stride;
    const float *h = nullptr;
    for (int64_t l = 0; l < model.shape.layers; ++l) {
        const LstmCpuLayer &layer = model.layer[l];
        project_inputs(work.gates, layer, units, input, input_stride, time_steps);
        fill_zero(work.c[0], units);
        float *sequence = work.sequence[l % 2];
        h = nullptr;
        for (int64_t t = 0; t < time_steps; ++t) {
            recur_step(sequence + t * units, work.c[0], model, layer, work.gates + t * 4 * units, h,
                       goes_down(t));
            h = sequence + t * units;
        }
        input = sequence;
        input_stride = units;
    }
    *out = head_of(h, model);
}

} // namespace
} // namespace rp
