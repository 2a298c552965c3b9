/* The recurrence of one LSTM layer over a whole sequence on the GPU, forward and backward; what
 * does not depend on the step before (the products with the input's weights, the sums over time of
 * the weight gradients) is the caller's.
 *
 *   (i, f, g, o) = projected(t) + bias_ih + bias_hh + W_hh h(t-1)
 *   c(t) = sigmoid(f) c(t-1) + sigmoid(i) tanh(g)       h(t) = sigmoid(o) tanh(c(t))
 *
 * Policy: operands of the recurrent product are split into two bfloat16 each, 16 bits of mantissa
 * (TF32 has 10), everything else is float32; every sum has a fixed order, so the same inputs give
 * the same bits. B is the batch, H the hidden size, gates are in PyTorch's order. All pointers are
 * to device memory, float, contiguous but where a stride is named; the caller owns them. */
#ifndef RP_KERNELS_LSTM_RECURRENCE_H
#define RP_KERNELS_LSTM_RECURRENCE_H

#include <cuda_runtime_api.h>
#include <stdint.h>

enum {
    RP_LSTM_RECURRENCE_ROWS = 8,  /* batch rows of a thread block */
    RP_LSTM_RECURRENCE_SAVED = 5, /* numbers a cell keeps for backward: i, f, g, o, c before */
};

typedef struct rp_lstm_recurrence_shape {
    int32_t time_steps; /* T >= 1 */
    int32_t batch;      /* B >= 1 */
    int32_t hidden;     /* H: 32 or 64 */
} rp_lstm_recurrence_shape;

typedef struct rp_lstm_recurrence_forward {
    rp_lstm_recurrence_shape shape;
    const float *projected;         /* [T][B][4H] */
    const float *weight;            /* [4H][H], on 16 bytes */
    const float *bias_ih, *bias_hh; /* [4H] */
    const float *h_0, *c_0;         /* [B][H], or NULL for zeros */
    float *output;                  /* [T][B][H] */
    float *h_n, *c_n;               /* [B][H] */
    float *saved; /* [T][B rounded up to ROWS][SAVED * H] for backward, or NULL; on 16 bytes */
} rp_lstm_recurrence_forward;

typedef struct rp_lstm_recurrence_backward {
    rp_lstm_recurrence_shape shape;
    const float *grad_output; /* d(loss)/d(output): [t][b][h] at t * time_stride + b * row_stride +
                                 h, or NULL for zeros */
    int64_t time_stride, row_stride;
    const float *grad_h_n, *grad_c_n; /* [B][H], or NULL for zeros */
    const float *saved;               /* forward's */
    const float *weight;              /* [4H][H] */
    float *grad_projected;            /* [T][B][4H] */
    float *grad_bias;                 /* [B / ROWS, rounded up][4H]: each block's share */
    float *grad_h_0, *grad_c_0;       /* [B][H] */
} rp_lstm_recurrence_backward;

#ifdef __cplusplus
extern "C" {
#endif
/* cudaErrorInvalidValue: H is neither 32 nor 64. */
cudaError_t rp_launch_lstm_recurrence_forward(const rp_lstm_recurrence_forward *params,
                                              cudaStream_t stream);
cudaError_t rp_launch_lstm_recurrence_backward(const rp_lstm_recurrence_backward *params,
                                               cudaStream_t stream);
#ifdef __cplusplus
}
#endif

#endif
