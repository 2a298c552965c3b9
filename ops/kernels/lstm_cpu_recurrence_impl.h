// The recurrence of one layer over a whole sequence, forward and backward, for autograd: hidden
// units lie in the lanes, so that arrays keep PyTorch's order.
//
// Policy: every row's sums run in one order, whatever rows are computed beside it.
#pragma once

#include "kernels/lstm_cpu_predict_impl.h"

namespace rp {
namespace {

// Registers: rows x 4 gates forward, rows x output_vectors backward.
#if defined(__AVX512F__)
constexpr int output_rows = 8, output_vectors = 2;
#else
constexpr int output_rows = 4, output_vectors = 2;
#endif

template <int rows>
RP_INLINE void recur_tile(const LstmCpuRecurrence &p, int64_t t, int64_t row, int64_t unit) {
    const int64_t H = p.hidden, at = (t * p.batch + row) * H;
    const float *before = t > 0 ? p.output + at - p.batch * H : p.h_0 ? p.h_0 + row * H : nullptr;
    vec gate[rows][4];
    RP_UNROLL
    for (int g = 0; g < 4; ++g) {
        const vec bias = load(p.bias_ih + g * H + unit) + load(p.bias_hh + g * H + unit);
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            gate[r][g] = load(p.projected + 4 * (at + r * H) + g * H + unit) + bias;
        }
    }
    if (before) {
        accumulate_rows(gate, p.weight_tiles + 4 * unit * H, before, H, H, false);
    }
    RP_UNROLL
    for (int r = 0; r < rows; ++r) {
        const vec i = sigmoid(gate[r][0]), f = sigmoid(gate[r][1]);
        const vec g = hyperbolic_tangent(gate[r][2]), o = sigmoid(gate[r][3]);
        float *cell = p.c_n + (row + r) * H + unit;
        const vec c_before = load(cell), c = f * c_before + i * g;
        store(cell, c);
        store(p.output + at + r * H + unit, o * hyperbolic_tangent(c));
        if (p.saved) {
            float *saved = p.saved + (t * p.saved_rows + row + r) * 5 * H + unit;
            store(saved, i);
            store(saved + H, f);
            store(saved + 2 * H, g);
            store(saved + 3 * H, o);
            store(saved + 4 * H, c_before);
        }
    }
}

// Rows [first, last) of the batch.
void recur_rows(const LstmCpuRecurrence &p, int64_t first, int64_t last) {
    const int64_t H = p.hidden;
    for (int64_t k = first * H; k < last * H; ++k) {
        p.c_n[k] = p.c_0 ? p.c_0[k] : 0.0f;
    }
    for (int64_t t = 0; t < p.time_steps; ++t) {
        for (int64_t unit = 0; unit < H; unit += lanes) {
            int64_t row = first;
            for (; row + tile_rows <= last; row += tile_rows) {
                recur_tile<tile_rows>(p, t, row, unit);
            }
            for (; row < last; ++row) {
                recur_tile<1>(p, t, row, unit);
            }
        }
    }
}

// The gate gradients of one row's vector of units, from dh; dc becomes that of the step before.
// The formulas are those of lstm_cpu_backward_impl.h.
RP_INLINE void gate_gradients(const LstmCpuRecurrenceBackward &p, int64_t t, int64_t row,
                              int64_t unit, vec (&bias)[4]) {
    const int64_t H = p.hidden;
    const float *saved = p.saved + (t * p.saved_rows + row) * 5 * H + unit;
    const vec i = load(saved), f = load(saved + H), g = load(saved + 2 * H);
    const vec o = load(saved + 3 * H), c_before = load(saved + 4 * H);
    float *dh = p.grad_h_0 + row * H + unit, *dc = p.grad_c_0 + row * H + unit;
    vec d = load(dh);
    if (p.grad_output) {
        d += load(p.grad_output + t * p.time_stride + row * p.row_stride + unit);
    }
    const vec tanh_c = hyperbolic_tangent(f * c_before + i * g);
    const vec dc_now = load(dc) + d * o * (1.0f - tanh_c * tanh_c);
    store(dc, dc_now * f);
    const vec gradient[4] = {dc_now * g * i * (1.0f - i), dc_now * c_before * f * (1.0f - f),
                             dc_now * i * (1.0f - g * g), d * tanh_c * o * (1.0f - o)};
    float *to = p.grad_projected + 4 * (t * p.batch + row) * H + unit;
    RP_UNROLL
    for (int k = 0; k < 4; ++k) {
        store(to + k * H, gradient[k]);
        bias[k] += gradient[k];
    }
}

// dh of the step before: rows x vectors of d(gates) [4H] W_hh [4H][H].
template <int rows, int vectors>
RP_INLINE void output_tile_of(const LstmCpuRecurrenceBackward &p, int64_t t, int64_t row,
                              int64_t unit) {
    const int64_t H = p.hidden;
    const float *gates = p.grad_projected + 4 * (t * p.batch + row) * H;
    const float *weight = p.weight + unit;
    vec sum[rows][vectors];
    RP_UNROLL
    for (int r = 0; r < rows; ++r) {
        RP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            sum[r][v] = vec{};
        }
    }
    for (int64_t k = 0; k < 4 * H; ++k, weight += H) {
        vec w[vectors];
        RP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            w[v] = load_once(weight + v * lanes);
        }
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            const vec d = broadcast(gates[r * 4 * H + k]);
            RP_UNROLL
            for (int v = 0; v < vectors; ++v) {
                sum[r][v] += d * w[v];
            }
        }
    }
    RP_UNROLL
    for (int r = 0; r < rows; ++r) {
        RP_UNROLL
        for (int v = 0; v < vectors; ++v) {
            store(p.grad_h_0 + (row + r) * H + unit + v * lanes, sum[r][v]);
        }
    }
}

template <int vectors>
RP_INLINE void output_columns(const LstmCpuRecurrenceBackward &p, int64_t t, int64_t first,
                              int64_t last, int64_t unit) {
    int64_t row = first;
    for (; row + output_rows <= last; row += output_rows) {
        output_tile_of<output_rows, vectors>(p, t, row, unit);
    }
    for (; row < last; ++row) {
        output_tile_of<1, vectors>(p, t, row, unit);
    }
}

// Rows [first, last) of the batch; their share of the bias gradient to bias [4H].
void recur_rows_backward(const LstmCpuRecurrenceBackward &p, int64_t first, int64_t last,
                         float *bias) {
    const int64_t H = p.hidden;
    fill_zero(bias, 4 * H);
    for (int64_t k = first * H; k < last * H; ++k) {
        p.grad_h_0[k] = p.grad_h_n ? p.grad_h_n[k] : 0.0f;
        p.grad_c_0[k] = p.grad_c_n ? p.grad_c_n[k] : 0.0f;
    }
    for (int64_t t = p.time_steps - 1; t >= 0; --t) {
        for (int64_t unit = 0; unit < H; unit += lanes) {
            vec sum[4];
            for (int k = 0; k < 4; ++k) {
                sum[k] = load(bias + k * H + unit);
            }
            for (int64_t row = first; row < last; ++row) {
                gate_gradients(p, t, row, unit, sum);
            }
            for (int k = 0; k < 4; ++k) {
                store(bias + k * H + unit, sum[k]);
            }
        }
        int64_t unit = 0;
        for (; unit + output_vectors * lanes <= H; unit += output_vectors * lanes) {
            output_columns<output_vectors>(p, t, first, last, unit);
        }
        for (; unit < H; unit += lanes) {
            output_columns<1>(p, t, first, last, unit);
        }
    }
}

} // namespace
} // namespace rp
