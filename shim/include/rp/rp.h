/* rp.h - the C interface of return-predictor: train, save, load and run the LSTM return model.
 *
 * Policy, everywhere in this header:
 *  - Every function that can fail returns an rp_status; rp_last_error() then says, in one line and
 *    for the calling thread, what failed, where, and what to do. No exception crosses it.
 *  - Out-parameters come first, and are NULL (or untouched numbers) on failure.
 *  - The caller frees what a *_create or *_load gave it with the matching *_free; *_free(NULL) is
 *    fine. A NULL handle elsewhere is RP_ERROR_ARGUMENT, never a crash.
 *  - Option structs are filled by their *_init function first, then changed field by field.
 *  - A handle is used by one thread at a time; different handles are independent.
 *  - Arrays are row-major, on the host; sizes are B (batch), T (time), F (features), H (hidden),
 *    N (rows), W (windows).
 *
 * libtorch is loaded the first time something needs it; loading and running a checkpoint on the
 * CPU does not.
 */
#ifndef RP_RP_H
#define RP_RP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RP_API __attribute__((visibility("default")))
#define RP_MUST_CHECK __attribute__((warn_unused_result))
#else
#define RP_API
#define RP_MUST_CHECK
#endif

/* Version of the option structs below; *_init writes it, every function checks it. */
#define RP_OPTIONS_VERSION 1

typedef enum rp_status {
    RP_OK = 0,
    RP_ERROR_ARGUMENT = 1,    /* the caller's mistake: a value out of range, a NULL handle */
    RP_ERROR_MEMORY = 2,      /* host memory exhausted */
    RP_ERROR_FILE = 3,        /* a file can't be opened, read, written or replaced */
    RP_ERROR_FORMAT = 4,      /* a file was read and is not a sound checkpoint */
    RP_ERROR_DEVICE = 5,      /* no GPU, GPU memory exhausted, GPU or its driver failing */
    RP_ERROR_UNAVAILABLE = 6, /* this build or machine can't run what was asked for */
    RP_ERROR_NUMERIC = 7,     /* a loss or weight became NaN or infinite */
    RP_ERROR_INTERNAL = 8,    /* a defect of this library */
    RP_ERROR_RANK = 9         /* another process of the job is dead or can't be reached */
} rp_status;

/* Message of the calling thread's last failure; "" before any. Never NULL; valid until the
 * thread's next call into this library. */
RP_API const char *rp_last_error(void);

/* "1.0.0"; static. */
RP_API const char *rp_version(void);

/* ---- Model ----------------------------------------------------------------------------------
 * x [B][T][F] -> LSTM(F, H, layers, dropout between layers) -> h at the last time step
 *   -> BatchNorm without affine parameters -> LeakyReLU -> Linear(H, 1) -> predicted return [B] */
typedef struct rp_model_options {
    uint32_t version;
    int32_t features;     /* F, 1..32;  4 */
    int32_t time_steps;   /* T, 1..64;  20 */
    int32_t hidden;       /* H, 1..512; 64 */
    int32_t layers;       /* 1..4;      2 */
    float dropout;        /* between layers, [0, 1); 0.2 */
    float norm_momentum;  /* (0, 1]; 0.1 */
    float norm_eps;       /* > 0; 1e-5 */
    float negative_slope; /* 0.01 */
} rp_model_options;

RP_API void rp_model_options_init(rp_model_options *options);

/* Trainable numbers of the model; 51,265 for the defaults. */
RP_API RP_MUST_CHECK rp_status rp_model_parameter_count(int64_t *count,
                                                        const rp_model_options *options);

/* ---- Data ---------------------------------------------------------------------------------------
 * Rows are stored once; a window is the index of its last row and covers the T rows that end
 * there. Borrowed: the arrays must live as long as the trainer that was made from them. */
typedef struct rp_data {
    const float *features;      /* [N][F], scaled */
    const float *targets;       /* [N], next-day return as a fraction; read at window ends only */
    int64_t rows;               /* N */
    const int32_t *window_ends; /* [W], each in [T-1, N) */
    int64_t windows;            /* W */
} rp_data;

/* ---- Configurations: where and how a model trains
 * ------------------------------------------------ */
typedef struct rp_configuration {
    const char *name;    /* "cpu", "gpu", ...; static */
    const char *summary; /* one line; static */
    int available;       /* 1 when this machine can run it */
    char reason[256];    /* why not, when it can't; "" otherwise */
} rp_configuration;

/* How many configurations there are. */
RP_API int32_t rp_configuration_count(void);

/* Describes configuration `index`, 0 <= index < count. Loads libtorch to find out. */
RP_API RP_MUST_CHECK rp_status rp_configuration_describe(rp_configuration *configuration,
                                                         int32_t index);

typedef struct rp_machine {
    char torch[64];    /* "2.11.0" */
    char gpu[128];     /* name of the current device; "" without one */
    char driver[32];   /* CUDA driver version; "" without one */
    char cuda[32];     /* CUDA runtime version; "" without one */
    char cudnn[32];    /* cuDNN version; "" without one */
    char compiler[64]; /* the one that built this library */
} rp_machine;

RP_API RP_MUST_CHECK rp_status rp_machine_describe(rp_machine *machine);

/* ---- Ranks: processes, on one machine or several, that share work through libtorch's TCPStore
 * ---- */
typedef struct rp_ranks rp_ranks;

typedef struct rp_ranks_options {
    uint32_t version;
    int32_t rank, count; /* of this process; of all */
    const char *address; /* where the store listens; "127.0.0.1" */
    int32_t port;        /* 29500 */
    int hosted;          /* 1: someone else, such as torchrun's agent, holds the store there;
                            0: rank 0 does */
    const char *group;   /* keeps apart what a store that outlives its users may still hold; "" */
    int32_t silence_seconds; /* a rank that has shown no life for so long is dead; 15 */
    int32_t arrival_seconds; /* to wait for all of them in the beginning; 300 */
} rp_ranks_options;

RP_API void rp_ranks_options_init(rp_ranks_options *options);

/* Returns when every rank is there. A thread of this handle then shows that this rank lives and
 * watches the others. */
RP_API RP_MUST_CHECK rp_status rp_ranks_create(rp_ranks **ranks, const rp_ranks_options *options);
RP_API void rp_ranks_free(rp_ranks *ranks);

/* Adds to a counter that all ranks share and that begins at 0; *value is its new value. */
RP_API RP_MUST_CHECK rp_status rp_ranks_add(int64_t *value, rp_ranks *ranks, const char *counter,
                                            int64_t amount);

/* RP_ERROR_RANK, naming it, when a rank is dead; costs nothing. */
RP_API RP_MUST_CHECK rp_status rp_ranks_check(rp_ranks *ranks);

/* Returns when every rank has called it with this place; RP_ERROR_RANK when one can't any more. */
RP_API RP_MUST_CHECK rp_status rp_ranks_wait(rp_ranks *ranks, const char *place);

/* ---- Trainer
 * ------------------------------------------------------------------------------------- Minimises
 * the mean squared error with Adam. The initial weights, the order of the samples and the dropout
 * masks are functions of the seed alone and the same in every configuration. */
typedef struct rp_trainer_options {
    uint32_t version;
    rp_model_options model;
    const char *configuration; /* "cpu" */
    const char *precision;     /* of gpu-fused's operands: "fp16", "bf16", "tf32", "fp32";
                                  NULL: the configuration's default */
    int64_t batch;             /* B, 2..2^20; 512; the last batch of an epoch may be smaller, and
                                  is left out when it would have one row (BatchNorm needs two) */
    double learning_rate;      /* 1e-3 */
    double beta1, beta2, eps;  /* 0.9, 0.999, 1e-8 */
    uint64_t seed;             /* 1 */
    int32_t threads;           /* on the CPU; 0: one a core */
    double target_unit;        /* the network predicts return / target_unit, and reported losses
                                  and saved heads are in returns again; 0: the power of two
                                  nearest to the standard deviation of the training targets, so
                                  that the conversion is exact */
    rp_ranks *ranks;           /* NULL; or the processes that share every batch: each computes a
                                  part of its rows, and all end with the same weights. Borrowed
                                  while the trainer lives. Every rank makes the same calls */
} rp_trainer_options;

typedef struct rp_trainer rp_trainer;

RP_API void rp_trainer_options_init(rp_trainer_options *options);

RP_API RP_MUST_CHECK rp_status rp_trainer_create(rp_trainer **trainer,
                                                 const rp_trainer_options *options,
                                                 const rp_data *data);
RP_API void rp_trainer_free(rp_trainer *trainer);

/* `count` trainers of the same data, which they share: it is checked once and copied to the device
 * once. options [count] must agree in features, time steps and target unit. trainers [count] are
 * all NULL on failure. */
RP_API RP_MUST_CHECK rp_status rp_trainers_create(rp_trainer **trainers,
                                                  const rp_trainer_options *options, int64_t count,
                                                  const rp_data *data);

typedef struct rp_progress {
    int64_t step;            /* optimiser steps done since the start of training */
    int64_t steps_per_epoch; /* ceil(W / B), or W / B when W % B is 1 */
    int64_t epoch;           /* complete epochs done */
    int64_t samples;         /* trained since the start of training */
    double loss;             /* mean over the samples of the current (or just completed) epoch */
    int64_t skipped_steps;   /* overflow: the loss scale was halved, the weights kept */
    int64_t peak_memory;     /* bytes of GPU memory (or of resident memory on the CPU) */
} rp_progress;

/* Trains at most `steps` more optimiser steps, but not past the end of the epoch, and returns when
 * they have finished on the device. A loss that is not finite is RP_ERROR_NUMERIC, names epoch and
 * step, and leaves the trainer unusable but for rp_trainer_failed_batch and free. */
RP_API RP_MUST_CHECK rp_status rp_trainer_run(rp_trainer *trainer, int64_t steps,
                                              rp_progress *progress);

/* Trains each of the trainers [count] `steps` more optimiser steps, past ends of epochs. They train
 * side by side where that is faster: cpu-fused as many at a time as there are `threads` (0: one a
 * core), gpu-fused in the same launches when they agree in shape, batch and step; others one after
 * another. Each gets the bits that it gets alone. One that fails doesn't stop the others: it is
 * left out from then on, and rp_trainer_failure says why. */
RP_API RP_MUST_CHECK rp_status rp_trainers_run(rp_trainer *const *trainers, int64_t count,
                                               int64_t steps, int32_t threads);

/* Why the trainer failed in rp_trainers_run, in one line; "" while it has not. Owned by the
 * trainer; "" for NULL. */
RP_API const char *rp_trainer_failure(const rp_trainer *trainer);

/* How many trainers rp_trainers_run should be given to keep the device busy: options->threads (0:
 * one a core) for cpu-fused, one a multiprocessor for gpu-fused, 1 for the others. */
RP_API RP_MUST_CHECK rp_status rp_trainers_at_once(int64_t *count,
                                                   const rp_trainer_options *options);

/* State of the training without doing any. */
RP_API RP_MUST_CHECK rp_status rp_trainer_progress(const rp_trainer *trainer,
                                                   rp_progress *progress);

/* One line when the trainer runs another configuration than was asked for, and why; "" otherwise.
 * Owned by the trainer; "" for NULL. */
RP_API const char *rp_trainer_note(const rp_trainer *trainer);

/* Mean loss of each complete epoch, oldest first. *losses is owned by the trainer and valid until
 * its next call. */
RP_API RP_MUST_CHECK rp_status rp_trainer_epoch_losses(const double **losses, int64_t *count,
                                                       const rp_trainer *trainer);

/* The window indices (into rp_data.window_ends) that step `step` trains, in batch order. At most
 * `capacity` are written; *count is how many the step has. */
RP_API RP_MUST_CHECK rp_status rp_trainer_step_windows(int64_t *windows, int64_t *count,
                                                       int64_t capacity, const rp_trainer *trainer,
                                                       int64_t step);

/* One line of a checkpoint's metadata. Keys of the library begin "model.", "training." or
 * "checkpoint."; every other key is the caller's own. */
typedef struct rp_metadata {
    const char *key;
    const char *value;
} rp_metadata;

/* Writes weights, optimiser state and metadata to `path`: to a temporary name in the same folder,
 * fsynced, renamed; a failure leaves the old file as it was. */
RP_API RP_MUST_CHECK rp_status rp_trainer_save(const rp_trainer *trainer, const char *path,
                                               const rp_metadata *metadata, int64_t metadata_count);

/* ---- Checkpoint: one .safetensors file
 * ----------------------------------------------------------- */
typedef struct rp_checkpoint rp_checkpoint;

/* Reads and validates the whole file: sizes, offsets, version, checksum, finite weights. */
RP_API RP_MUST_CHECK rp_status rp_checkpoint_load(rp_checkpoint **checkpoint, const char *path);
RP_API void rp_checkpoint_free(rp_checkpoint *checkpoint);

/* Value of a metadata key, or NULL when there is none; owned by the checkpoint. */
RP_API const char *rp_checkpoint_metadata(const rp_checkpoint *checkpoint, const char *key);

RP_API RP_MUST_CHECK rp_status rp_checkpoint_model(rp_model_options *model,
                                                   const rp_checkpoint *checkpoint);

/* Continues where the checkpoint stopped: its weights, optimiser state and step. The trainer's
 * model options, batch, number of windows, seed and target unit must equal the checkpoint's. */
RP_API RP_MUST_CHECK rp_status rp_trainer_resume(rp_trainer *trainer,
                                                 const rp_checkpoint *checkpoint);

/* The trainer's present state as a checkpoint in memory, for rp_predictor_create or for restoring
 * the best weights later by rp_trainer_resume; metadata as in rp_trainer_save. */
RP_API RP_MUST_CHECK rp_status rp_trainer_snapshot(rp_checkpoint **checkpoint,
                                                   const rp_trainer *trainer);

/* Writes a checkpoint that is in memory, with `metadata` added to (or replacing) its own. */
RP_API RP_MUST_CHECK rp_status rp_checkpoint_save(const rp_checkpoint *checkpoint, const char *path,
                                                  const rp_metadata *metadata,
                                                  int64_t metadata_count);

/* ---- Predictor: the forward pass with the running statistics, no dropout, on the CPU
 * ------------- */
typedef struct rp_predictor rp_predictor;

/* `threads` 0: one a core. The checkpoint may be freed afterwards. Needs no libtorch. */
RP_API RP_MUST_CHECK rp_status rp_predictor_create(rp_predictor **predictor,
                                                   const rp_checkpoint *checkpoint,
                                                   int32_t threads);
RP_API void rp_predictor_free(rp_predictor *predictor);

/* returns [W] = predicted next-day return of each window over features [N][F] (scaled). */
RP_API RP_MUST_CHECK rp_status rp_predictor_run(float *returns, rp_predictor *predictor,
                                                const float *features, int64_t rows,
                                                const int32_t *window_ends, int64_t windows);

/* The same forward pass by libtorch's own operators, as a reference: `device` "cpu" or "cuda". */
RP_API RP_MUST_CHECK rp_status rp_reference_predict(float *returns, const rp_checkpoint *checkpoint,
                                                    const char *device, const float *features,
                                                    int64_t rows, const int32_t *window_ends,
                                                    int64_t windows);

/* ---- Verification of rp::bn_leaky_relu against libtorch's own operators
 * -------------------------- */
typedef struct rp_verify_case {
    const char *shape;  /* "512x64" */
    const char *dtype;  /* "float32" */
    const char *layout; /* "contiguous" */
    const char *mode;   /* "train" or "eval" */
    const char *path;   /* "fused" or "composed" */
    int affine;         /* 1: weight and bias given */
    int outputs;        /* how many of the following are used */
    struct {
        const char *name;           /* "output", "mean", ..., "grad_bias" */
        int64_t differing_elements; /* elements whose bits differ */
        double max_difference;
    } output[8];
} rp_verify_case;

/* Return other than 0 to stop. The case is valid during the call. */
typedef int (*rp_verify_callback)(const rp_verify_case *result, void *context);

/* Runs every case on `device` ("cpu" or "cuda"); *differing_elements is the sum over all.
 * `perturb` != 0 changes the fused result in its last bit first, to prove that it is noticed. */
RP_API RP_MUST_CHECK rp_status rp_verify(int64_t *differing_elements, const char *device,
                                         int perturb, rp_verify_callback callback, void *context);

#ifdef __cplusplus
}
#endif
#endif
