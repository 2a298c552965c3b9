// Between the CPU model (lstm_cpu.h, lstm_cpu_train.h) and its kernels, which are compiled once per
// instruction set: plain structs of sizes and borrowed pointers, and one table of functions a set.
//
// Names: F features, T time steps, H hidden units, U = H rounded up to whole vectors, S windows of
// a slice (one a lane), K inputs of a layer (F, or H above the first), V lanes of a vector.
// Weights and biases of the units between H and U are 0; so then are their h, c and gradients.
#pragma once

#include <cstdint>

#include "kernels/lstm_cpu.h"

namespace rp {

constexpr int64_t lstm_cpu_most_layers = 4;
// Backward, weight gradients take this many time steps at a time, to pass over dW less often.
constexpr int64_t lstm_cpu_steps_together = 2;

// A layer's weights as the kernels read them: front to back, each tile contiguous.
struct LstmCpuLayer {
    int64_t inputs;               // K
    const float *forward;         // [U/unit_tile][K + H][unit_tile][4 gates], training
    const float *bias;            // [U][4], b_ih + b_hh, training
    const float *backward_hidden; // [U/output_tile][4H][output_tile]: W_hh by columns, training
    const float *backward_input;  // the same of W_ih; above the first layer
    const float *project;         // [U/V][K][4 gates][V]: W_ih, inference
    const float *recur;           // [U/V][H][4][V]: W_hh, inference
    const float *gate_bias;       // [U/V][4][V], b_ih + b_hh, inference
};

struct LstmCpuModel {
    LstmCpuShape shape;
    int64_t units; // U
    LstmCpuLayer layer[lstm_cpu_most_layers];
    const float *head_weight;      // [U]
    const float *norm_mean;        // [U], inference
    const float *norm_inverse_std; // [U], inference
    float head_bias, negative_slope;
};

struct LstmCpuDropout {
    uint64_t seed;
    int64_t step;
    uint32_t threshold; // rp_dropout_threshold; 0: nothing is dropped
    float scale;
};

// One thread's buffers; see lstm_cpu_work_assign.
struct LstmCpuWork {
    float *x;                       // [T][F][S]; inference: [count][T][F]
    float *h[lstm_cpu_most_layers]; // [2][U][S], two time steps in turn; inference: [2][count][U]
    float *c[lstm_cpu_most_layers]; // [U][S]; inference: [count][U]
    float *sequence[2];             // [T][U] of one window, two layers in turn
    float *gates;                   // [T][4U] of one window
    // training
    int32_t *keep[lstm_cpu_most_layers];  // [U][S] dropout of eight time steps, a bit each
    float *dropped[lstm_cpu_most_layers]; // [U][S] h after dropout
    float *tanh_c[lstm_cpu_most_layers];  // [U][S] of the time step at hand
    float *dh[lstm_cpu_most_layers];      // [U][S] from the time step after
    float *dh_above;                      // [U][S] from the layer above
    float *dc[lstm_cpu_most_layers];      // [U][S]
    float *dgates[lstm_cpu_most_layers];  // [steps_together][4U][S], rows 4 * unit + gate
    float *rows[lstm_cpu_most_layers];    // [steps_together][S][columns]: (h of t-1, input of t)
    float *dbias[lstm_cpu_most_layers];   // [4H][V]
};

// Windows of one slice. Windows past `count` repeat the last; what they yield is not read.
struct LstmCpuSlice {
    const float *features;     // [N][F]
    const int32_t *ends;       // [count]: last row of each window
    int64_t count;             // 1..S
    int64_t first_row;         // of the batch
    float *sequence = nullptr; // predict_rows: [T][count][U], every h of the last layer, if wanted
};

// dW of a layer: [4H][columns], rows 4 * unit + gate, columns (U of h, K of the input, padding).
struct LstmCpuGradient {
    float *weight[lstm_cpu_most_layers];
    int64_t columns[lstm_cpu_most_layers];
};

struct LstmCpuHead {
    int64_t rows, stride;              // B; columns of h, at least B rounded up to whole vectors
    const float *targets;              // [stride], zero beyond B
    const float *h;                    // [U][stride]
    float *dh;                         // [U][stride]
    float *error;                      // [stride]
    float *running_mean, *running_var; // [H]
    float *dweight, *dbias;            // [H], [1]
    float momentum, eps;
};

struct LstmCpuAdam {
    float *parameters, *exp_avg, *exp_avg_sq; // [count]
    const float *gradient;                    // [count]
    int64_t count;
    float one_minus_beta1, beta2, one_minus_beta2, eps;
    float step_size, inverse_correction; // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
};

// The recurrence of one layer, all arrays contiguous and in PyTorch's order; H a multiple of V.
struct LstmCpuRecurrence {
    int64_t time_steps, batch, hidden;
    const float *projected;         // [T][B][4H]: the input times weight_ih
    const float *weight_tiles;      // [H/V][H][4][V]: weight_hh
    const float *bias_ih, *bias_hh; // [4H]
    const float *h_0, *c_0;         // [B][H], or nullptr for zeros
    float *output;                  // [T][B][H]
    float *c_n;                     // [B][H]
    float *saved;                   // [T][saved_rows][i, f, g, o, c of t-1][H], or nullptr
    int64_t saved_rows;
};

struct LstmCpuRecurrenceBackward {
    int64_t time_steps, batch, hidden;
    const float *grad_output; // [t][b][H] at t * time_stride + b * row_stride, or nullptr for zeros
    int64_t time_stride, row_stride;
    const float *grad_h_n, *grad_c_n; // [B][H], or nullptr for zeros
    const float *saved;               // forward's
    int64_t saved_rows;
    const float *weight;        // [4H][H]: weight_hh
    float *grad_projected;      // [T][B][4H]
    float *grad_h_0, *grad_c_0; // [B][H]
};

struct LstmCpuKernels {
    const char *name;
    int64_t lanes, slice; // V, S
    int64_t unit_tile;    // units of a forward tile
    int64_t output_tile;  // outputs of a backward tile

    // out [count] = predictions, or nullptr for no head; count is at most S.
    void (*predict_rows)(float *out, const LstmCpuModel &, const LstmCpuWork &,
                         const LstmCpuSlice &);
    void (*predict_single)(float *out, const LstmCpuModel &, const LstmCpuWork &,
                           const float *features, int32_t end);
    // saved [T][L][U][5][S]: i, f, g, o, c, where the sign of o is set when h was dropped.
    // h [U][h_stride], its first S columns: the last layer's h at the last time step.
    void (*forward_slice)(float *saved, float *h, int64_t h_stride, const LstmCpuModel &,
                          const LstmCpuWork &, const LstmCpuSlice &, const LstmCpuDropout &);
    // Adds the slice's share to dW and to work.dbias, given dh [U][dh_stride].
    void (*backward_slice)(const LstmCpuGradient &, const float *saved, const float *dh,
                           int64_t dh_stride, const LstmCpuModel &, const LstmCpuWork &,
                           const LstmCpuSlice &, const LstmCpuDropout &);
    // Batch statistics, loss, gradients of the head and of h. Returns the mean squared error.
    float (*head)(const LstmCpuHead &, const LstmCpuModel &);
    void (*adam)(const LstmCpuAdam &);
    // Rows [first, last) of the batch; bias [4H]: their share of either bias's gradient.
    void (*recur_rows)(const LstmCpuRecurrence &, int64_t first, int64_t last);
    void (*recur_rows_backward)(const LstmCpuRecurrenceBackward &, int64_t first, int64_t last,
                                float *bias);
};

// nullptr where the compiler has no such instruction set.
const LstmCpuKernels *lstm_cpu_kernels_portable();
const LstmCpuKernels *lstm_cpu_kernels_avx2();
const LstmCpuKernels *lstm_cpu_kernels_avx512();

// The kernels of `isa`, or of the best one that this machine has when it has not that one.
const LstmCpuKernels &lstm_cpu_kernels(LstmCpuIsa isa);

static inline int64_t lstm_cpu_round_up(int64_t count, int64_t multiple) {
    return (count + multiple - 1) / multiple * multiple;
}

} // namespace rp
