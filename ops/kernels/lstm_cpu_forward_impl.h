// Forward over a slice of windows, one window a lane: [row][S] arrays, all gates of a tile of units
// in registers, the cell computed on them. All layers go through a time step before the next.
//
// Policy: see lstm_cpu_vector.h. Every window's sums run over k in ascending order.
#pragma once

#include "kernels/lstm_cpu_vector.h"

namespace rp {
namespace {

// Registers: 4 gates x unit_tile units x slice_vectors accumulators.
#if defined(__AVX512F__)
constexpr int slice_vectors = 2, unit_tile = 2;
#elif defined(__AVX2__)
constexpr int slice_vectors = 3, unit_tile = 1;
#else
constexpr int slice_vectors = 2, unit_tile = 1;
#endif
constexpr int slice = slice_vectors * lanes;
constexpr int saved_values = 5; // i, f, g, o, c

// sum [rows][slice] += weights [count][rows] x from [count][slice]; advances weights.
template <int rows>
RP_INLINE void accumulate(vec (&sum)[rows][slice_vectors], const float *&weights, const float *from,
                          int64_t count) {
#pragma GCC unroll 2
    for (int64_t k = 0; k < count; ++k, from += slice, weights += rows) {
        vec x[slice_vectors];
        RP_UNROLL
        for (int v = 0; v < slice_vectors; ++v) {
            x[v] = load_once(from + v * lanes);
        }
        RP_UNROLL
        for (int r = 0; r < rows; ++r) {
            const vec w = broadcast(weights[r]);
            RP_UNROLL
            for (int v = 0; v < slice_vectors; ++v) {
                sum[r][v] += w * x[v];
            }
        }
    }
}

// Where a layer's step reads and writes; all [U][S] but as said.
struct StepArrays {
    const float *input;    // [K][S]
    const float *h_before; // nullptr at the first time step
    float *h, *c;
    float *saved;        // [U][5][S], nullptr in inference
    const int32_t *keep; // dropout bits, nullptr without
    float *dropped;      // h after dropout
    int keep_bit;
    float keep_scale;
};

RP_INLINE void finish_cell(const StepArrays &arrays, int64_t unit, int v, vec i, vec f, vec g,
                           vec o) {
    const int64_t at = unit * slice + v * lanes;
    i = sigmoid(i);
    f = sigmoid(f);
    g = hyperbolic_tangent(g);
    o = sigmoid(o);
    const vec c = f * load(arrays.c + at) + i * g;
    const vec h = o * hyperbolic_tangent(c);
    store(arrays.c + at, c);
    store(arrays.h + at, h);
    if (arrays.keep) {
        const ivec gone = (load(arrays.keep + at) >> arrays.keep_bit & 1) - 1; // all ones: dropped
        store(arrays.dropped + at, (vec)((ivec)(h * arrays.keep_scale) & ~gone));
        o = (vec)((ivec)o | (gone & INT32_MIN));
    }
    if (arrays.saved) {
        float *saved = arrays.saved + unit * saved_values * slice + v * lanes;
        store(saved, i);
        store(saved + slice, f);
        store(saved + 2 * slice, g);
        store(saved + 3 * slice, o);
        store(saved + 4 * slice, c);
    }
}

// One layer, one time step.
void step_layer(const LstmCpuLayer &layer, int64_t hidden, int64_t units,
                const StepArrays &arrays) {
    const float *weights = layer.forward;
    const int64_t recurrent = arrays.h_before ? hidden : 0;
    for (int64_t unit = 0; unit < units; unit += unit_tile) {
        vec gate[4 * unit_tile][slice_vectors];
        RP_UNROLL
        for (int r = 0; r < 4 * unit_tile; ++r) {
            const vec bias = broadcast(layer.bias[unit * 4 + r]);
            RP_UNROLL
            for (int v = 0; v < slice_vectors; ++v) {
                gate[r][v] = bias;
            }
        }
        weights = layer.forward + unit * 4 * (layer.inputs + hidden);
        accumulate(gate, weights, arrays.input, layer.inputs);
        accumulate(gate, weights, arrays.h_before, recurrent);
        RP_UNROLL
        for (int u = 0; u < unit_tile; ++u) {
            RP_UNROLL
            for (int v = 0; v < slice_vectors; ++v) {
                finish_cell(arrays, unit + u, v, gate[4 * u][v], gate[4 * u + 1][v],
                            gate[4 * u + 2][v], gate[4 * u + 3][v]);
            }
        }
    }
}

// x [T][F][S]
void gather_slice(float *x, const LstmCpuShape &shape, const LstmCpuSlice &windows) {
    const int64_t count = static_cast<int64_t>(shape.time_steps) * shape.features;
    for (int64_t s = 0; s < slice; ++s) {
        const int64_t window = s < windows.count ? s : windows.count - 1;
        const int64_t first = windows.ends[window] - shape.time_steps + 1;
        const float *from = windows.features + first * shape.features;
        for (int64_t k = 0; k < count; ++k) {
            x[k * slice + s] = from[k];
        }
    }
}

// keep [U][S]: the eight time steps that begin at 8 * time_block.
void draw_dropout(int32_t *keep, const LstmCpuDropout &dropout, int64_t first_row, uint32_t layer,
                  int64_t hidden, uint32_t time_block) {
    for (int64_t unit = 0; unit < hidden; ++unit) {
        for (int v = 0; v < slice_vectors; ++v) {
            store(keep + unit * slice + v * lanes,
                  dropout_keep_bits(dropout, first_row + v * lanes, layer,
                                    static_cast<uint32_t>(unit), time_block));
        }
    }
}

// Where the last time step's h of the last layer lies: [U][S].
inline const float *last_h(const LstmCpuModel &model, const LstmCpuWork &work) {
    const int64_t turn = (model.shape.time_steps - 1) % 2;
    return work.h[model.shape.layers - 1] + turn * model.units * slice;
}

void run_layers(float *saved, const LstmCpuModel &model, const LstmCpuWork &work,
                const LstmCpuSlice &windows, const LstmCpuDropout &dropout) {
    const int64_t layers = model.shape.layers, units = model.units, size = units * slice;
    gather_slice(work.x, model.shape, windows);
    for (int64_t l = 0; l < layers; ++l) {
        fill_zero(work.c[l], size);
    }
    for (int64_t t = 0; t < model.shape.time_steps; ++t) {
        const float *input = work.x + t * model.shape.features * slice;
        for (int64_t l = 0; l < layers; ++l) {
            const bool drops = dropout.threshold > 0 && l + 1 < layers;
            if (drops && t % 8 == 0) {
                draw_dropout(work.keep[l], dropout, windows.first_row, static_cast<uint32_t>(l),
                             model.shape.hidden, static_cast<uint32_t>(t / 8));
            }
            float *h = work.h[l] + t % 2 * size;
            const float *h_before = t > 0 ? work.h[l] + (t - 1) % 2 * size : nullptr;
            step_layer(model.layer[l], model.shape.hidden, units,
                       {input, h_before, h, work.c[l], saved, drops ? work.keep[l] : nullptr,
                        drops ? work.dropped[l] : nullptr, static_cast<int>(t % 8), dropout.scale});
            input = drops ? work.dropped[l] : h;
            saved = saved ? saved + units * saved_values * slice : nullptr;
        }
    }
}

void forward_slice(float *saved, float *h, int64_t h_stride, const LstmCpuModel &model,
                   const LstmCpuWork &work, const LstmCpuSlice &windows,
                   const LstmCpuDropout &dropout) {
    run_layers(saved, model, work, windows, dropout);
    const float *last = last_h(model, work);
    for (int64_t unit = 0; unit < model.units; ++unit) {
        for (int v = 0; v < slice_vectors; ++v) {
            store(h + unit * h_stride + v * lanes, load(last + unit * slice + v * lanes));
        }
    }
}

} // namespace
} // namespace rp
