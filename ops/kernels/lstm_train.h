/* One persistent kernel that trains: LSTM(F, H, 1 or 2 layers, dropout between) -> last h ->
 * BatchNorm by batch statistics -> LeakyReLU -> Linear(H, 1) -> mean squared error -> Adam.
 * One launch runs any number of optimiser steps of any number of independent models.
 *
 * Policy: which samples a step trains and what it drops are functions of (seed, step) alone
 * (random.h: a last batch of one row is left out); every sum is taken in an order that depends on
 * the batch alone. So the same seed gives the same bits, whether steps come in one launch or many
 * and whatever trains beside.
 *
 * Parameters of a model are concatenated in PyTorch's order: weight_ih_l0 [4H][F], weight_hh_l0
 * [4H][H], bias_ih_l0 [4H], bias_hh_l0 [4H], the same for layer 1 with H inputs, head weight [H],
 * head bias [1]; gates in the order i, f, g, o. */
#ifndef RP_KERNELS_LSTM_TRAIN_H
#define RP_KERNELS_LSTM_TRAIN_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

/* Type of the matrix operands; weights, accumulators, statistics and Adam are always float. Up to
 * 10 features meet their weights in twice the bits. fp16 and fp32 have a loss scale; a step that
 * overflows is skipped. */
typedef enum rp_lstm_precision {
    RP_LSTM_FP16 = 0,
    RP_LSTM_BF16 = 1,
    RP_LSTM_TF32 = 2,
    RP_LSTM_FP32 = 3 /* as sums of two fp16, 22 bits: features and weights below 65504 */
} rp_lstm_precision;

typedef struct rp_lstm_train_shape {
    int32_t models;     /* M */
    int32_t features;   /* F */
    int32_t time_steps; /* T */
    int32_t hidden;     /* H */
    int32_t layers;     /* L */
    int32_t batch;      /* B */
    rp_lstm_precision precision;
} rp_lstm_train_shape;

/* How a shape is laid over the device; made by rp_lstm_train_plan_make. */
typedef struct rp_lstm_train_plan {
    int32_t models_per_launch; /* all of them on the device at once */
    int32_t clusters;          /* of each model; one thread block a layer */
    int32_t tiles;             /* of 8 batch rows each */
    int32_t segments;          /* the T time steps in runs that fit in shared memory */
    int32_t segment_steps;     /* of every run but the first, which has the rest */
    int32_t carries_sums;      /* half of the weight gradients stay on chip to the last tile */
    size_t shared_bytes;       /* of a block */
    size_t model_bytes;        /* workspace of one model; 0.3 MB or more a tile that waits */
    size_t workspace_bytes;    /* of one launch */
} rp_lstm_train_plan;

typedef struct rp_lstm_train_params {
    rp_lstm_train_shape shape;
    int64_t first_step; /* optimiser steps before this launch, skipped ones included */
    int32_t steps;
    /* data, device */
    const float *features;        /* [N][F] */
    const float *targets;         /* [N] */
    const int32_t *window_ends;   /* [W], each in [T-1, N) */
    const int64_t *window_ranges; /* [M][2]: first window and number of windows of each model */
    const int64_t *seeds;         /* [M] */
    const float *learning_rates;  /* [M] */
    /* state, device, changed in place */
    float *parameters;   /* [M][P] */
    float *exp_avg;      /* [M][P] */
    float *exp_avg_sq;   /* [M][P] */
    float *running_mean; /* [M][H] */
    float *running_var;  /* [M][H], unbiased */
    float *losses;       /* [M][steps], output: mean loss of each step's batch */
    float *scale_state;  /* [M][3]: loss scale, good steps since it changed, skipped steps */
    float dropout, momentum, norm_eps, negative_slope;
    double beta1, beta2;
    float adam_eps;
    void *workspace; /* [plan.workspace_bytes], device, 256-byte aligned */
} rp_lstm_train_params;

#ifdef __cplusplus
extern "C" {
#endif

/* 1 when the kernel can train this shape; else 0 and *reason is one static line. */
int rp_lstm_train_supported(const rp_lstm_train_shape *shape, const char **reason);

int64_t rp_lstm_train_parameter_count(const rp_lstm_train_shape *shape);

/* First loss scale of fp16 and fp32: a power of two that keeps gate gradients in the upper half of
 * fp16's range; the scale never grows beyond it. 1 for the other types. */
float rp_lstm_train_first_scale(const rp_lstm_train_shape *shape);

/* Asks the current device how many clusters it holds at once. */
cudaError_t rp_lstm_train_plan_make(rp_lstm_train_plan *plan, const rp_lstm_train_shape *shape);

cudaError_t rp_launch_lstm_train(const rp_lstm_train_params *params, const rp_lstm_train_plan *plan,
                                 cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
