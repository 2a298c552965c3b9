// Backward through time over a slice of windows, and the weight gradients.
//
// With d = dL/dh, c' = f c + i g, h = o tanh(c'):
//   do = d tanh(c') o(1-o)   dc' = dc + d o (1 - tanh(c')^2)
//   di = dc' g i(1-i)   df = dc' c f(1-f)   dg = dc' i (1-g^2)   dc = dc' f
//   dx = W_ih^T dgates   dh = W_hh^T dgates   dW += dgates (h before, x)^T
// tanh(c) and h are recomputed from the saved o and c. Policy: see lstm_cpu_vector.h.
#pragma once

#include "kernels/lstm_cpu_forward_impl.h"

namespace rp {
namespace {

// Registers: output_tile x slice_vectors; 4 x gradient_vectors.
#if defined(__AVX512F__)
constexpr int output_tile = 8, gradient_vectors = 5;
#else
constexpr int output_tile = 4, gradient_vectors = 3;
#endif

// Bytes of the saved activations that the next time steps will read, fetched bit by bit.
struct Prefetch {
    const char *at, *end;
    RP_INLINE void next_line() {
        if (at < end) {
            __builtin_prefetch(at, 0, 2);
            at += 64;
        }
    }
};

// out [U][S] = columns [U/output_tile][4H][output_tile] x dgates [4H][S].
void multiply_transposed(float *out, const float *columns, const float *dgates, int64_t units,
                         int64_t hidden, Prefetch &prefetch) {
    constexpr int rows_a_line = 32 / output_tile;
    for (int64_t unit = 0; unit < units; unit += output_tile) {
        vec sum[output_tile][slice_vectors];
        RP_UNROLL
        for (int r = 0; r < output_tile; ++r) {
            RP_UNROLL
            for (int v = 0; v < slice_vectors; ++v) {
                sum[r][v] = vec{};
            }
        }
        const float *weights = columns + unit * 4 * hidden, *from = dgates;
        int64_t k = 0;
        for (; k + rows_a_line <= 4 * hidden; k += rows_a_line, from += rows_a_line * slice) {
            prefetch.next_line();
            accumulate(sum, weights, from, rows_a_line);
        }
        accumulate(sum, weights, from, 4 * hidden - k);
        RP_UNROLL
        for (int r = 0; r < output_tile; ++r) {
            RP_UNROLL
            for (int v = 0; v < slice_vectors; ++v) {
                store(out + (unit + r) * slice + v * lanes, sum[r][v]);
            }
        }
    }
}

// dweight [4 rows][width vectors] += dgates [4][S] x rows [S][columns], over `steps` time steps.
template <int width>
RP_INLINE void add_gradient_tile(float *dweight, int64_t columns, const float *dgates,
                                 int64_t dgates_step, const float *rows, int64_t steps) {
    vec sum[4][width];
    RP_UNROLL
    for (int r = 0; r < 4; ++r) {
        RP_UNROLL
        for (int v = 0; v < width; ++v) {
            sum[r][v] = load(dweight + r * columns + v * lanes);
        }
    }
    for (int64_t step = 0; step < steps; ++step) {
        const float *gate = dgates + step * dgates_step, *row = rows + step * slice * columns;
#pragma GCC unroll 2
        for (int s = 0; s < slice; ++s, ++gate, row += columns) {
            vec x[width];
            RP_UNROLL
            for (int v = 0; v < width; ++v) {
                x[v] = load_once(row + v * lanes);
            }
            RP_UNROLL
            for (int r = 0; r < 4; ++r) {
                const vec d = broadcast(gate[r * slice]);
                RP_UNROLL
                for (int v = 0; v < width; ++v) {
                    sum[r][v] += d * x[v];
                }
            }
        }
    }
    RP_UNROLL
    for (int r = 0; r < 4; ++r) {
        RP_UNROLL
        for (int v = 0; v < width; ++v) {
            store(dweight + r * columns + v * lanes, sum[r][v]);
        }
    }
}

void add_gradient(float *dweight, int64_t columns, const float *dgates, int64_t dgates_step,
                  const float *rows, int64_t hidden, int64_t steps) {
    for (int64_t r = 0; r < 4 * hidden; r += 4) {
        float *to = dweight + r * columns;
        const float *gate = dgates + r * slice;
        int64_t left = columns / lanes;
        while (left > 0) {
            // As few tiles as possible, and those of equal width.
            const int64_t tiles = (left + gradient_vectors - 1) / gradient_vectors;
            const int64_t width = (left + tiles - 1) / tiles, column = columns - left * lanes;
            float *at = to + column;
            const float *from = rows + column;
            switch (width) {
#if defined(__AVX512F__)
            case 5:
                add_gradient_tile<5>(at, columns, gate, dgates_step, from, steps);
                break;
            case 4:
                add_gradient_tile<4>(at, columns, gate, dgates_step, from, steps);
                break;
#endif
            case 3:
                add_gradient_tile<3>(at, columns, gate, dgates_step, from, steps);
                break;
            case 2:
                add_gradient_tile<2>(at, columns, gate, dgates_step, from, steps);
                break;
            default:
                add_gradient_tile<1>(at, columns, gate, dgates_step, from, steps);
            }
            left -= width;
        }
    }
}

struct BackwardArrays {
    const float *saved, *saved_before; // [U][5][S]; before is nullptr at the first time step
    const float *dh;                   // [U][S]
    const float *dh_above;             // [U][S], nullptr in the last layer
    bool drops;
    float keep_scale;
    float *dc, *tanh_c;               // [U][S]; of this time step, then of the one before
    float *dgates;                    // [4U][S]
    float *dbias;                     // [4H][V]
    float *h_before, *dropped_before; // [U][S]; dropped_before nullptr in the last layer
};

RP_INLINE vec without_sign(vec value) {
    return (vec)((ivec)value & INT32_MAX);
}
RP_INLINE vec drop(vec value, vec saved_o, float scale) {
    return (vec)((ivec)(value * scale) & ~((ivec)saved_o >> 31));
}

// Elementwise part of one layer and time step.
void step_back(const BackwardArrays &arrays, int64_t hidden) {
    for (int64_t unit = 0; unit < hidden; ++unit) {
        vec bias[4] = {};
        RP_UNROLL
        for (int v = 0; v < slice_vectors; ++v) {
            const int64_t at = unit * slice + v * lanes;
            const float *saved = arrays.saved + unit * saved_values * slice + v * lanes;
            const vec i = load(saved), f = load(saved + slice), g = load(saved + 2 * slice);
            vec o = load(saved + 3 * slice), d = load(arrays.dh + at);
            if (arrays.dh_above) {
                const vec above = load(arrays.dh_above + at);
                d += arrays.drops ? drop(above, o, arrays.keep_scale) : above;
                o = without_sign(o);
            }
            const vec t = load(arrays.tanh_c + at);
            const vec d_o = d * t * (o * (1.0f - o));
            const vec d_c = (d * o) * (1.0f - t * t) + load(arrays.dc + at);
            vec c_before = {};
            if (arrays.saved_before) {
                const float *before = arrays.saved_before + unit * saved_values * slice + v * lanes;
                c_before = load(before + 4 * slice);
                const vec o_before = load(before + 3 * slice);
                const vec t_before = hyperbolic_tangent(c_before);
                const vec h = without_sign(o_before) * t_before;
                store(arrays.tanh_c + at, t_before);
                store(arrays.h_before + at, h);
                if (arrays.dropped_before) {
                    store(arrays.dropped_before + at,
                          arrays.drops ? drop(h, o_before, arrays.keep_scale) : h);
                }
            }
            const vec d_i = d_c * g * (i * (1.0f - i)), d_f = d_c * c_before * (f * (1.0f - f));
            const vec d_g = d_c * i * (1.0f - g * g);
            store(arrays.dc + at, d_c * f);
            float *dgates = arrays.dgates + unit * 4 * slice + v * lanes;
            store(dgates, d_i);
            store(dgates + slice, d_f);
            store(dgates + 2 * slice, d_g);
            store(dgates + 3 * slice, d_o);
            bias[0] += d_i;
            bias[1] += d_f;
            bias[2] += d_g;
            bias[3] += d_o;
        }
        RP_UNROLL
        for (int gate = 0; gate < 4; ++gate) {
            float *dbias = arrays.dbias + (unit * 4 + gate) * lanes;
            store(dbias, load(dbias) + bias[gate]);
        }
    }
}

// rows [S][columns], first column `column` = transpose of h [U][S].
void transpose_h(float *rows, int64_t columns, const float *h, int64_t units) {
    for (int64_t unit = 0; unit < units; unit += lanes) {
        for (int64_t s = 0; s < slice; s += lanes) {
            transpose_block(h + unit * slice + s, slice, rows + s * columns + unit, columns);
        }
    }
}

void zero_h(float *rows, int64_t columns, int64_t units) {
    for (int64_t s = 0; s < slice; ++s) {
        fill_zero(rows + s * columns, units);
    }
}

// The first layer's inputs of time step t beside h; the padding stays zero.
void copy_features(float *rows, int64_t columns, const LstmCpuShape &shape,
                   const LstmCpuSlice &windows, int64_t t) {
    for (int64_t s = 0; s < windows.count; ++s) {
        const int64_t row = windows.ends[s] - shape.time_steps + 1 + t;
        for (int64_t f = 0; f < shape.features; ++f) {
            rows[s * columns + f] = windows.features[row * shape.features + f];
        }
    }
}

// tanh(c) and dropped h of the last time step, which no later step has computed.
void begin_backward(const LstmCpuModel &model, const LstmCpuWork &work, const float *saved,
                    const float *dh, int64_t dh_stride, const LstmCpuDropout &dropout) {
    const int64_t layers = model.shape.layers, units = model.units;
    for (int64_t l = 0; l < layers; ++l) {
        const float *from = saved + l * units * saved_values * slice;
        fill_zero(work.dh[l], units * slice);
        fill_zero(work.dc[l], units * slice);
        for (int64_t unit = 0; unit < units; ++unit) {
            for (int v = 0; v < slice_vectors; ++v) {
                const int64_t at = unit * slice + v * lanes;
                const float *value = from + unit * saved_values * slice + v * lanes;
                const vec o = load(value + 3 * slice);
                const vec t = hyperbolic_tangent(load(value + 4 * slice));
                store(work.tanh_c[l] + at, t);
                if (l + 1 < layers) {
                    const vec h = without_sign(o) * t;
                    store(work.dropped[l] + at,
                          dropout.threshold > 0 ? drop(h, o, dropout.scale) : h);
                } else {
                    store(work.dh[l] + at, load(dh + unit * dh_stride + v * lanes));
                }
            }
        }
    }
}

void backward_slice(const LstmCpuGradient &gradient, const float *saved, const float *dh,
                    int64_t dh_stride, const LstmCpuModel &model, const LstmCpuWork &work,
                    const LstmCpuSlice &windows, const LstmCpuDropout &dropout) {
    const int64_t layers = model.shape.layers, units = model.units, hidden = model.shape.hidden;
    const int64_t last = model.shape.time_steps - 1;
    const int64_t saved_layer = units * saved_values * slice, saved_step = layers * saved_layer;
    const int64_t dgates_step = 4 * units * slice;
    float *h_before = work.h[0]; // forward is over
    begin_backward(model, work, saved + last * saved_step, dh, dh_stride, dropout);
    int64_t steps = 0; // whose dgates and rows wait for add_gradient
    for (int64_t t = last; t >= 0; --t) {
        const float *now = saved + t * saved_step;
        const char *ahead = reinterpret_cast<const char *>(now - 2 * saved_step);
        Prefetch prefetch = {ahead, t > 1 ? ahead + 4 * saved_step : ahead};
        for (int64_t l = layers - 1; l >= 0; --l) {
            const LstmCpuLayer &layer = model.layer[l];
            const bool above = l + 1 < layers;
            const int64_t columns = gradient.columns[l];
            const float *at = now + l * saved_layer;
            float *dgates = work.dgates[l] + steps * dgates_step;
            float *rows = work.rows[l] + steps * slice * columns;
            step_back({at, t > 0 ? at - saved_step : nullptr, work.dh[l],
                       above ? work.dh_above : nullptr, above && dropout.threshold > 0,
                       dropout.scale, work.dc[l], work.tanh_c[l], dgates, work.dbias[l], h_before,
                       above ? work.dropped[l] : nullptr},
                      hidden);
            if (t > 0) {
                transpose_h(rows, columns, h_before, units);
                multiply_transposed(work.dh[l], layer.backward_hidden, dgates, units, hidden,
                                    prefetch);
            } else {
                zero_h(rows, columns, units);
            }
            if (l > 0) {
                transpose_h(rows + units, columns, work.dropped[l - 1], units);
                multiply_transposed(work.dh_above, layer.backward_input, dgates, units, hidden,
                                    prefetch);
            } else {
                copy_features(rows + units, columns, model.shape, windows, t);
            }
        }
        if (++steps == lstm_cpu_steps_together || t == 0) {
            for (int64_t l = layers - 1; l >= 0; --l) {
                add_gradient(gradient.weight[l], gradient.columns[l], work.dgates[l], dgates_step,
                             work.rows[l], hidden, steps);
            }
            steps = 0;
        }
    }
}

} // namespace
} // namespace rp
