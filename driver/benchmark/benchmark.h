/* The speed table: the same training in several configurations, timed.
 *
 * Policy: a repeat is a whole training (all epochs) from the same initial weights over the same
 * sample order. The clock runs around rp_trainers_run, which returns when the device has finished;
 * making the trainer (uploads, cuDNN's plans, graph capture) and three warm-up steps, whose effect
 * is undone, lie outside. Repeats of all configurations take turns, so that a disturbance meets
 * all; one that has trained for BENCHMARK_ENOUGH_SECONDS is not repeated further. */
#ifndef BENCHMARK_BENCHMARK_H
#define BENCHMARK_BENCHMARK_H

#include "rp/rp.h"

#include "base/error.h"
#include "base/json.h"
#include "dataset/dataset.h"

enum { BENCHMARK_CONFIGURATIONS = 24, BENCHMARK_REPEATS = 100, BENCHMARK_ENOUGH_SECONDS = 60 };

/* Losses of one epoch may differ from the first configuration's by this much, relatively; more
 * makes a configuration's row void. Operands of 10 to 24 bits and other orders of summation, over
 * thousands of Adam steps, stay below 1e-3. */
#define BENCHMARK_LOSS_TOLERANCE 1e-2

typedef struct benchmark_row {
    char name[64];      /* configuration, or configuration:precision */
    char precision[16]; /* "" when skipped */
    char reason[256];   /* why it was skipped or is void; "" when it ran */
    bool ran, is_void;
    double seconds[BENCHMARK_REPEATS]; /* [repeats] */
    int64_t repeats;                   /* done */
    double total_seconds;
    double median_seconds;
    double *epoch_loss; /* [epochs], owned */
    double test_mse;
    int64_t peak_memory, samples;
} benchmark_row;

typedef struct benchmark {
    rp_trainer_options trainer; /* configuration and precision: each row's own */
    int64_t epochs, repeats;
    bool quiet;
    benchmark_row rows[BENCHMARK_CONFIGURATIONS];
    int32_t count;
} benchmark;

/* Adds a row for "NAME" or "NAME:PRECISION"; a machine that can't run it keeps the reason. */
bool benchmark_add(benchmark *benchmark, const char *name, error *error);
bool benchmark_run(benchmark *benchmark, const dataset *dataset, error *error);
void benchmark_free(benchmark *benchmark);

/* Members "data", "protocol" and "configurations" of the open object. */
void benchmark_write_json(json *json, const benchmark *benchmark, const dataset *dataset,
                          const char *source);
/* The table, to standard output. */
void benchmark_print(const benchmark *benchmark);

#endif
