#include "benchmark/benchmark.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/signals.h"
#include "training/training.h"

enum { WARM_UP_STEPS = 3 };
static const double report_seconds = 0.25;

bool benchmark_add(benchmark *benchmark, const char *name, error *error) {
    if (benchmark->count == BENCHMARK_CONFIGURATIONS) {
        return error_set(error, "more than %d configurations", BENCHMARK_CONFIGURATIONS);
    }
    benchmark_row *row = &benchmark->rows[benchmark->count];
    snprintf(row->name, sizeof row->name, "%s", name);
    const size_t length = strcspn(name, ":");
    for (int32_t i = 0; i < rp_configuration_count(); ++i) {
        rp_configuration configuration;
        if (rp_configuration_describe(&configuration, i) != RP_OK) {
            return training_fail(error, "configurations");
        }
        if (strlen(configuration.name) == length &&
            strncmp(configuration.name, name, length) == 0) {
            snprintf(row->reason, sizeof row->reason, "%s", configuration.reason);
            ++benchmark->count;
            return true;
        }
    }
    return error_set(error,
                     "--configurations: '%s' is not one of cpu, cpu-fused, gpu, gpu-kernel, "
                     "gpu-graph, gpu-fused (or NAME:PRECISION)",
                     name);
}

static bool make_trainer(rp_trainer **trainer, const benchmark *benchmark, const benchmark_row *row,
                         const rp_data *data, error *error) {
    char name[sizeof row->name];
    rp_trainer_options options = benchmark->trainer;
    snprintf(name, sizeof name, "%s", row->name);
    char *colon = strchr(name, ':');
    if (colon) {
        *colon = '\0';
        options.precision = colon + 1;
    }
    options.configuration = name;
    if (rp_trainer_create(trainer, &options, data) != RP_OK) {
        return training_fail(error, row->name);
    }
    if (rp_trainer_note(*trainer)[0]) {
        fprintf(stderr, "%s\n", rp_trainer_note(*trainer));
    }
    return true;
}

/* Runs a few steps and puts the state back, so that nothing lazy is left for the clock. */
static bool warm_up(rp_trainer *trainer, rp_checkpoint **initial, error *error) {
    rp_checkpoint *at_start = NULL;
    const bool ok = rp_trainer_snapshot(&at_start, trainer) == RP_OK &&
                    rp_trainer_run(trainer, WARM_UP_STEPS, NULL) == RP_OK &&
                    rp_trainer_resume(trainer, at_start) == RP_OK;
    *initial = at_start;
    return ok ? true : training_fail(error, "warm-up");
}

/* Trains `steps` steps, past ends of epochs: nothing here needs the weights of one. */
static bool run_steps(rp_progress *at, rp_trainer *trainer, int64_t steps, error *error) {
    if (rp_trainers_run(&trainer, 1, steps, 0) != RP_OK ||
        rp_trainer_progress(trainer, at) != RP_OK) {
        return training_fail(error, "training");
    }
    const char *failure = rp_trainer_failure(trainer);
    return failure[0] == '\0' || error_set(error, "training: %s", failure);
}

/* All epochs; *seconds is the time inside the shim. */
static bool run_epochs(double *seconds, rp_progress *at, rp_trainer *trainer,
                       const benchmark *benchmark, progress *bar, error *error) {
    double total = 0.0;
    if (rp_trainer_progress(trainer, at) != RP_OK) {
        return training_fail(error, "training");
    }
    const int64_t last = benchmark->epochs * at->steps_per_epoch;
    int64_t chunk = 1; /* a step may take seconds */
    while (at->step < last) {
        const int64_t before = at->step;
        const double start = progress_clock();
        if (!run_steps(at, trainer, chunk < last - before ? chunk : last - before, error)) {
            return false;
        }
        const double elapsed = progress_clock() - start;
        total += elapsed;
        const double each = elapsed / (double)(at->step - before);
        chunk = each > 0 && report_seconds / each < 1e9 ? 1 + (int64_t)(report_seconds / each)
                                                        : 1 << 20;
        char detail[64];
        snprintf(detail, sizeof detail, "epoch %lld, loss %.4e", (long long)at->epoch, at->loss);
        progress_update(bar, at->step, detail);
        if (signals_received()) {
            return error_set(error, "interrupted; no result was written");
        }
    }
    *seconds = total;
    return true;
}

/* What is read off once, after the first repeat: losses, precision, memory, test error. */
static bool describe(benchmark_row *row, rp_trainer *trainer, const benchmark *benchmark,
                     const dataset *dataset, const rp_progress *at, error *error) {
    const double *losses = NULL;
    int64_t count = 0;
    rp_checkpoint *checkpoint = NULL;
    if (rp_trainer_epoch_losses(&losses, &count, trainer) != RP_OK ||
        rp_trainer_snapshot(&checkpoint, trainer) != RP_OK) {
        return training_fail(error, row->name);
    }
    row->epoch_loss = malloc((size_t)benchmark->epochs * sizeof *row->epoch_loss);
    const char *precision = rp_checkpoint_metadata(checkpoint, "training.precision");
    snprintf(row->precision, sizeof row->precision, "%s", precision ? precision : "");
    row->peak_memory = at->peak_memory;
    row->samples = at->samples;
    bool ok = row->epoch_loss != NULL;
    if (ok) {
        memcpy(row->epoch_loss, losses, (size_t)benchmark->epochs * sizeof *losses);
        ok = training_loss(&row->test_mse, checkpoint, dataset,
                           dataset->train_windows + dataset->validation_windows,
                           dataset->test_windows, error);
    } else {
        error_set(error, "out of memory");
    }
    rp_checkpoint_free(checkpoint);
    return ok;
}

static bool run_repeat(benchmark_row *row, const benchmark *benchmark, const dataset *dataset,
                       error *error) {
    const rp_data data = training_data(dataset, 0, dataset->train_windows);
    rp_trainer *trainer = NULL;
    rp_checkpoint *initial = NULL;
    rp_progress at = {0};
    progress bar;
    progress_start(&bar, row->name, 0, benchmark->quiet);
    bool ok =
        make_trainer(&trainer, benchmark, row, &data, error) && warm_up(trainer, &initial, error);
    if (ok && rp_trainer_progress(trainer, &at) == RP_OK) {
        progress_start(&bar, row->name, benchmark->epochs * at.steps_per_epoch, benchmark->quiet);
    }
    double *seconds = &row->seconds[row->repeats];
    ok = ok && run_epochs(seconds, &at, trainer, benchmark, &bar, error);
    progress_finish(&bar);
    if (ok && row->repeats == 0) {
        ok = describe(row, trainer, benchmark, dataset, &at, error);
    }
    if (ok && !benchmark->quiet) {
        fprintf(stderr, "%s: %.4f s, %.0f samples/s\n", row->name, *seconds,
                (double)row->samples / *seconds);
    }
    row->total_seconds += *seconds;
    ++row->repeats;
    rp_checkpoint_free(initial);
    rp_trainer_free(trainer);
    return ok;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int64_t count) {
    double sorted[BENCHMARK_REPEATS];
    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_doubles);
    return count % 2 ? sorted[count / 2] : 0.5 * (sorted[count / 2 - 1] + sorted[count / 2]);
}

/* A row whose losses leave the first row's by more than the tolerance did other work: void. */
static void judge(benchmark *benchmark) {
    const benchmark_row *first = NULL;
    for (int32_t i = 0; i < benchmark->count; ++i) {
        benchmark_row *row = &benchmark->rows[i];
        if (!row->ran) {
            continue;
        }
        row->median_seconds = median(row->seconds, row->repeats);
        first = first ? first : row;
        for (int64_t e = 0; e < benchmark->epochs && !row->is_void; ++e) {
            const double relative = fabs(row->epoch_loss[e] / first->epoch_loss[e] - 1.0);
            if (!(relative <= BENCHMARK_LOSS_TOLERANCE)) {
                row->is_void = true;
                snprintf(row->reason, sizeof row->reason,
                         "loss of epoch %lld differs from %s's by %.2g of it; at most %.2g agrees",
                         (long long)e + 1, first->name, relative, BENCHMARK_LOSS_TOLERANCE);
            }
        }
    }
}

bool benchmark_run(benchmark *benchmark, const dataset *dataset, error *error) {
    signals_watch();
    for (int64_t repeat = 0; repeat < benchmark->repeats; ++repeat) {
        for (int32_t i = 0; i < benchmark->count; ++i) {
            benchmark_row *row = &benchmark->rows[i];
            if (row->reason[0] != '\0' || row->total_seconds > BENCHMARK_ENOUGH_SECONDS) {
                continue;
            }
            if (!run_repeat(row, benchmark, dataset, error)) {
                return false;
            }
            row->ran = true;
        }
    }
    judge(benchmark);
    return true;
}

void benchmark_free(benchmark *benchmark) {
    for (int32_t i = 0; i < benchmark->count; ++i) {
        free(benchmark->rows[i].epoch_loss);
    }
    benchmark->count = 0;
}
