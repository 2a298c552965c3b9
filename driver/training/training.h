/* One training run, from a data set to a checkpoint file: progress, log, early stopping, saving at
 * intervals and on a signal, continuing. */
#ifndef TRAINING_TRAINING_H
#define TRAINING_TRAINING_H

#include "rp/rp.h"

#include "base/error.h"
#include "dataset/dataset.h"

typedef struct training_options {
    rp_trainer_options trainer;
    int64_t epochs;
    int64_t patience; /* epochs without a better validation loss before stopping; 0: never */
    int64_t checkpoint_every; /* optimiser steps between saves; 0: at the end of each epoch */
    const char *checkpoint;   /* path */
    const char *log;          /* JSON lines, one an epoch; NULL: none */
    bool resume;              /* continue from `checkpoint` when it is there */
    bool quiet;
    bool follows; /* another rank of trainer.ranks writes the files */
} training_options;

typedef struct training_result {
    rp_progress progress;
    double start_seconds;   /* until the trainer is there: libtorch, the GPU, what is continued */
    double train_seconds;   /* inside rp_trainer_run */
    double save_seconds;    /* the rest: validation, intervals, files */
    double validation_loss; /* of the saved weights; NaN without validation windows */
    bool interrupted;       /* by SIGINT or SIGTERM: the checkpoint holds what was reached */
} training_result;

/* The windows [first, first + count) of dataset->windows as what rp.h trains on; borrowed. */
rp_data training_data(const dataset *dataset, int64_t first, int64_t count);

/* Leaves the trained (with patience: the best) weights in options->checkpoint, together with what
 * is needed to rebuild the data set and with conformal intervals. */
bool training_run(training_result *result, const dataset *dataset, const training_options *options,
                  error *error);

/* Mean squared error of the checkpoint's predictions over windows [first, first + count). */
bool training_loss(double *loss, const rp_checkpoint *checkpoint, const dataset *dataset,
                   int64_t first, int64_t count, error *error);

/* "STATUS: message" of the shim's last failure, as an error; false. */
bool training_fail(error *error, const char *what);

#endif
