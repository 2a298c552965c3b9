#include "training/training.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/date.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/signals.h"
#include "base/text.h"
#include "training/training_save.h"

static const double report_seconds = 0.08; /* a chunk of steps aims at this: over ten a second */
static const double save_seconds = 1.0;    /* epochs that are shorter are not all saved */
enum { FIRST_CHUNK = 8, LARGEST_CHUNK = 1 << 20, PATH_SIZE = 4096 };

/* A run in progress. */
typedef struct run {
    const dataset *dataset;
    const training_options *options;
    rp_trainer *trainer;
    FILE *log;
    progress bar;
    rp_progress progress;
    double train_seconds;
    int64_t chunk;             /* steps that take about report_seconds */
    double saved;              /* when */
    rp_checkpoint *best;       /* with patience: the weights of the best validation loss so far, */
    char best_path[PATH_SIZE]; /* kept in this file too, for a run that continues */
    double best_loss;
    int64_t best_epoch;
    text validation_losses; /* of each epoch so far, a space between, as the library's own list */
} run;

bool training_fail(error *error, const char *what) {
    return error_set(error, "%s: %s", what, rp_last_error());
}

rp_data training_data(const dataset *dataset, int64_t first, int64_t count) {
    return (rp_data){dataset->features, dataset->targets, dataset->rows, dataset->windows + first,
                     count};
}

bool training_loss(double *loss, const rp_checkpoint *checkpoint, const dataset *dataset,
                   int64_t first, int64_t count, error *error) {
    const rp_data data = training_data(dataset, first, count);
    rp_predictor *predictor = NULL;
    bool ok = false;
    float *returns = malloc((size_t)(count > 0 ? count : 1) * sizeof *returns);
    if (!returns) {
        error_set(error, "out of memory for %lld predictions", (long long)count);
        goto done;
    }
    if (rp_predictor_create(&predictor, checkpoint, 0) != RP_OK ||
        rp_predictor_run(returns, predictor, data.features, data.rows, data.window_ends,
                         data.windows) != RP_OK) {
        training_fail(error, "predicting");
        goto done;
    }
    double sum = 0.0;
    for (int64_t w = 0; w < count; ++w) {
        const double difference =
            (double)returns[w] - (double)dataset->targets[data.window_ends[w]];
        sum += difference * difference;
    }
    *loss = count > 0 ? sum / (double)count : NAN;
    ok = true;
done:
    rp_predictor_free(predictor);
    free(returns);
    return ok;
}

/* Ticker and last day of a window of the failed batch. */
typedef struct batch_window {
    const char *ticker;
    char date[DATE_SIZE];
} batch_window;

static batch_window find_window(const run *run, int64_t window) {
    const dataset *dataset = run->dataset;
    const int32_t row = dataset->windows[window];
    batch_window found = {.ticker = dataset->market->tickers[dataset_ticker(dataset, row)].name};
    date_format(found.date, dataset_date(dataset, row));
    return found;
}

static void log_failed_batch(const run *run, const rp_progress *at, const int64_t *windows,
                             int64_t count) {
    json json = {0};
    json_object(&json, NULL);
    json_int(&json, "failed_epoch", at->epoch + 1);
    json_int(&json, "failed_step", at->step + 1);
    json_array(&json, "batch");
    for (int64_t i = 0; i < count; ++i) {
        const batch_window window = find_window(run, windows[i]);
        json_object(&json, NULL);
        json_string(&json, "ticker", window.ticker);
        json_string(&json, "date", window.date);
        json_end(&json);
    }
    json_end(&json);
    json_end(&json);
    if (text_ok(&json.text)) {
        fprintf(run->log, "%s\n", json.text.data);
    }
    json_free(&json);
}

/* Names what a batch whose loss is not finite was made of: some of it in the message, all of it in
 * the log. */
static void describe_failed_batch(const run *run, error *error) {
    enum { SHOWN = 3 };
    rp_progress at = {0};
    const int64_t most = run->options->trainer.batch;
    int64_t count = 0, *windows = malloc((size_t)most * sizeof *windows);
    if (windows && rp_trainer_progress(run->trainer, &at) == RP_OK &&
        rp_trainer_step_windows(windows, &count, most, run->trainer, at.step) == RP_OK) {
        text list = {0};
        for (int64_t i = 0; i < count && i < SHOWN; ++i) {
            const batch_window window = find_window(run, windows[i]);
            text_printf(&list, "%s %s, ", window.ticker, window.date);
        }
        const size_t used = strlen(error->message);
        snprintf(error->message + used, sizeof error->message - used,
                 ". Its batch holds %lld windows: %s... (%s). %s is as it was last saved",
                 (long long)count, text_ok(&list) && list.data ? list.data : "",
                 run->log ? "all are in the log" : "--log lists them all",
                 run->options->checkpoint);
        text_free(&list);
        if (run->log) {
            log_failed_batch(run, &at, windows, count);
        }
    }
    free(windows);
}

static bool save(run *run, const rp_checkpoint *checkpoint, error *error) {
    rp_checkpoint *snapshot = NULL;
    run->saved = progress_clock();
    if (run->options->follows) {
        return true;
    }
    if (!checkpoint && rp_trainer_snapshot(&snapshot, run->trainer) != RP_OK) {
        return training_fail(error, "snapshot");
    }
    const bool ok = training_save(run->options->checkpoint, checkpoint ? checkpoint : snapshot,
                                  run->dataset, run->validation_losses.data, error);
    rp_checkpoint_free(snapshot);
    return ok;
}

static bool log_epoch(run *run, double validation_loss, error *error) {
    if (!run->log) {
        return true;
    }
    json json = {0};
    json_object(&json, NULL);
    json_int(&json, "epoch", run->progress.epoch);
    json_int(&json, "step", run->progress.step);
    json_int(&json, "samples", run->progress.samples);
    json_double(&json, "loss", run->progress.loss);
    json_double(&json, "validation_loss", validation_loss);
    json_double(&json, "train_seconds", run->train_seconds);
    json_end(&json);
    const bool ok = text_ok(&json.text) && fprintf(run->log, "%s\n", json.text.data) > 0 &&
                    fflush(run->log) == 0;
    json_free(&json);
    return ok ? true : error_set(error, "can't write %s: %s", run->options->log, strerror(errno));
}

/* Keeps the best weights; *stop when patience has run out. Takes over `now`. */
static bool keep_best(run *run, rp_checkpoint *now, double loss, bool *stop, error *error) {
    if (run->best && !(loss < run->best_loss)) {
        rp_checkpoint_free(now);
        *stop = run->progress.epoch - run->best_epoch >= run->options->patience;
        return true;
    }
    rp_checkpoint_free(run->best);
    run->best = now;
    run->best_loss = loss;
    run->best_epoch = run->progress.epoch;
    return run->options->follows || rp_checkpoint_save(now, run->best_path, NULL, 0) == RP_OK ||
           training_fail(error, "best weights");
}

static bool watch_validation(run *run, double *loss, bool *stop, error *error) {
    rp_checkpoint *now = NULL;
    if (rp_trainer_snapshot(&now, run->trainer) != RP_OK) {
        return training_fail(error, "snapshot");
    }
    if (!training_loss(loss, now, run->dataset, run->dataset->train_windows,
                       run->dataset->validation_windows, error)) {
        rp_checkpoint_free(now);
        return false;
    }
    text_printf(&run->validation_losses, "%s%.17g", run->validation_losses.length ? " " : "",
                *loss);
    if (!text_ok(&run->validation_losses)) {
        rp_checkpoint_free(now);
        return error_set(error, "out of memory for the validation losses");
    }
    if (run->options->patience > 0) {
        return keep_best(run, now, *loss, stop, error);
    }
    rp_checkpoint_free(now);
    run->best_loss = *loss; /* of the weights that will be saved */
    return true;
}

static bool end_epoch(run *run, bool *stop, error *error) {
    double validation_loss = NAN;
    if (run->dataset->validation_windows > 0 &&
        !watch_validation(run, &validation_loss, stop, error)) {
        return false;
    }
    if (!run->options->quiet && !run->bar.terminal) {
        fprintf(stderr, "epoch %lld: loss %.6e, %.0f samples/s\n", (long long)run->progress.epoch,
                run->progress.loss, (double)run->progress.samples / run->train_seconds);
    }
    return log_epoch(run, validation_loss, error);
}

/* Trains one chunk, sized so that progress shows and signals are seen ten times a second. */
static bool train_chunk(run *run, error *error) {
    int64_t steps = run->chunk;
    const int64_t every = run->options->checkpoint_every;
    if (every > 0 && steps > every - run->progress.step % every) {
        steps = every - run->progress.step % every;
    }
    const int64_t before = run->progress.step;
    const double start = progress_clock();
    const rp_status status = rp_trainer_run(run->trainer, steps, &run->progress);
    const double seconds = progress_clock() - start;
    if (status != RP_OK) {
        training_fail(error, "training");
        if (status == RP_ERROR_NUMERIC) {
            describe_failed_batch(run, error);
        }
        return false;
    }
    run->train_seconds += seconds;
    const double each = seconds / (double)(run->progress.step - before);
    const double fitting = each > 0 ? report_seconds / each : (double)LARGEST_CHUNK;
    run->chunk = fitting < 1 ? 1 : fitting > LARGEST_CHUNK ? LARGEST_CHUNK : (int64_t)fitting;
    char detail[96];
    snprintf(detail, sizeof detail, "loss %.4e, %.0f samples/s", run->progress.loss,
             (double)(run->progress.step - before) * (double)run->options->trainer.batch / seconds);
    progress_update(&run->bar, run->progress.step, detail);
    return true;
}

static bool train(run *run, bool *interrupted, error *error) {
    bool stop = false;
    const int64_t last = run->options->epochs * run->progress.steps_per_epoch;
    while (!stop && run->progress.step < last) {
        if (!train_chunk(run, error)) {
            return false;
        }
        const bool epoch_ended = run->progress.step % run->progress.steps_per_epoch == 0;
        if (epoch_ended && !end_epoch(run, &stop, error)) {
            return false;
        }
        const int64_t every = run->options->checkpoint_every;
        const bool due = every > 0 ? run->progress.step % every == 0
                                   : epoch_ended && progress_clock() - run->saved > save_seconds;
        *interrupted = signals_received();
        if (*interrupted) {
            return save(run, NULL, error);
        }
        if (due && run->progress.step < last && !stop && !save(run, NULL, error)) {
            return false;
        }
    }
    if (!save(run, run->best, error)) {
        return false;
    }
    if (run->best && !run->options->follows && unlink(run->best_path) != 0 && errno != ENOENT) {
        return error_set(error, "can't remove %s: %s", run->best_path, strerror(errno));
    }
    return true;
}

/* The best weights of the run that is continued. */
static bool resume_best(run *run, error *error) {
    if (run->options->patience == 0 || access(run->best_path, F_OK) != 0) {
        return true;
    }
    if (rp_checkpoint_load(&run->best, run->best_path) != RP_OK) {
        return training_fail(error, "--resume");
    }
    const char *losses = rp_checkpoint_metadata(run->best, "training.epoch_losses");
    for (run->best_epoch = losses && *losses ? 1 : 0; losses && *losses; ++losses) {
        run->best_epoch += *losses == ' '; /* one number an epoch, one space between */
    }
    return training_loss(&run->best_loss, run->best, run->dataset, run->dataset->train_windows,
                         run->dataset->validation_windows, error);
}

/* The validation losses of the epochs that the checkpoint has behind it; the best weights are
 * followed by those of the epochs that were no better. */
static bool resume_losses(run *run, const rp_checkpoint *checkpoint, error *error) {
    rp_progress at = {0};
    if (rp_trainer_progress(run->trainer, &at) != RP_OK) {
        return training_fail(error, "--resume");
    }
    const char *losses = rp_checkpoint_metadata(checkpoint, TRAINING_VALIDATION_LOSSES);
    for (int64_t epoch = 0; losses && *losses && epoch < at.epoch; ++epoch) {
        const size_t length = strcspn(losses + (epoch > 0), " ") + (epoch > 0);
        text_append(&run->validation_losses, losses, length);
        losses += length;
    }
    return text_ok(&run->validation_losses) ||
           error_set(error, "out of memory for the validation losses");
}

/* Continues from options->checkpoint when it is there. */
static bool resume(run *run, error *error) {
    if (!run->options->resume || access(run->options->checkpoint, F_OK) != 0) {
        return true;
    }
    rp_checkpoint *checkpoint = NULL;
    bool ok = rp_checkpoint_load(&checkpoint, run->options->checkpoint) == RP_OK &&
              rp_trainer_resume(run->trainer, checkpoint) == RP_OK;
    if (!ok) {
        training_fail(error, "--resume");
    } else {
        ok = training_save_matches(checkpoint, run->dataset, error) &&
             resume_losses(run, checkpoint, error) && resume_best(run, error);
    }
    rp_checkpoint_free(checkpoint);
    return ok;
}

static bool open_run(run *run, error *error) {
    const rp_data data = training_data(run->dataset, 0, run->dataset->train_windows);
    const training_options *options = run->options;
    const int length =
        snprintf(run->best_path, sizeof run->best_path, "%s.best", options->checkpoint);
    if (length < 0 || (size_t)length >= sizeof run->best_path) {
        return error_set(error, "--checkpoint: the path is too long");
    }
    if (options->log && !options->follows &&
        !(run->log = fopen(options->log, options->resume ? "a" : "w"))) {
        return error_set(error, "can't open %s: %s", options->log, strerror(errno));
    }
    if (rp_trainer_create(&run->trainer, &options->trainer, &data) != RP_OK) {
        return training_fail(error, "can't train");
    }
    if (rp_trainer_note(run->trainer)[0]) {
        fprintf(stderr, "%s\n", rp_trainer_note(run->trainer));
    }
    if (!resume(run, error)) {
        return false;
    }
    if (rp_trainer_progress(run->trainer, &run->progress) != RP_OK) {
        return training_fail(error, "training");
    }
    run->saved = progress_clock();
    run->chunk = FIRST_CHUNK;
    progress_start(&run->bar, "train", options->epochs * run->progress.steps_per_epoch,
                   options->quiet);
    return true;
}

bool training_run(training_result *result, const dataset *dataset, const training_options *options,
                  error *error) {
    run run = {.dataset = dataset, .options = options, .best_loss = NAN};
    signals_watch();
    const double begin = progress_clock();
    bool ok = open_run(&run, error);
    result->start_seconds = progress_clock() - begin;
    ok = ok && train(&run, &result->interrupted, error);
    progress_finish(&run.bar);
    result->progress = run.progress;
    result->train_seconds = run.train_seconds;
    result->save_seconds = progress_clock() - begin - result->start_seconds - result->train_seconds;
    result->validation_loss = run.best_loss;
    rp_checkpoint_free(run.best);
    text_free(&run.validation_losses);
    rp_trainer_free(run.trainer);
    if (run.log && fclose(run.log) != 0 && ok) {
        return error_set(error, "can't write %s: %s", options->log, strerror(errno));
    }
    return ok;
}
