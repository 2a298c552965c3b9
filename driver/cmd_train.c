/* train: one model (or one a seed) from price files to a checkpoint. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/progress.h"
#include "command.h"
#include "dataset/dataset.h"
#include "market/market.h"
#include "training/ranks.h"
#include "training/training.h"

enum { PATH_SIZE = 4096 };

typedef struct train_options {
    const char *prices;
    market_options market;
    dataset_options dataset;
    training_options training;
    int64_t threads, seeds, hidden, layers, time_steps, embargo, silence;
    double dropout;
} train_options;

/* FILE for one seed; FILE with ".seedK" before its extension for several. */
static bool seed_path(char *path, size_t size, const char *file, uint64_t seed, int64_t seeds) {
    const char *slash = strrchr(file, '/');
    const char *dot = strrchr(slash ? slash : file, '.');
    const int stem = (int)(dot ? dot - file : (ptrdiff_t)strlen(file));
    const int length = seeds == 1 ? snprintf(path, size, "%s", file)
                                  : snprintf(path, size, "%.*s.seed%llu%s", stem, file,
                                             (unsigned long long)seed, dot ? dot : "");
    return length > 0 && (size_t)length < size;
}

/* Where the command's time goes, in seconds, over all seeds. */
typedef struct parts {
    double read, start, train, save;
} parts;

static void print_parts(const parts *parts) {
    fprintf(stderr,
            "%.3f s in all: %.3f s to read the prices, %.3f s to start, %.3f s of training, %.3f s "
            "to check and save\n",
            parts->read + parts->start + parts->train + parts->save, parts->read, parts->start,
            parts->train, parts->save);
}

static bool train_seeds(const train_options *options, const dataset *dataset, parts *parts,
                        error *error) {
    const char *file = options->training.checkpoint;
    training_result result = {0};
    for (int64_t i = 0; i < options->seeds && !result.interrupted; ++i) {
        char path[PATH_SIZE];
        training_options training = options->training;
        training.trainer.seed += (uint64_t)i;
        training.checkpoint = path;
        if (!seed_path(path, sizeof path, file, training.trainer.seed, options->seeds)) {
            return error_set(error, "--checkpoint: the path is too long");
        }
        if (!training_run(&result, dataset, &training, error)) {
            return false;
        }
        parts->start += result.start_seconds;
        parts->train += result.train_seconds;
        parts->save += result.save_seconds;
        if (!training.quiet) {
            fprintf(stderr, "%s: %lld epochs, loss %.6e, %.3f s of training, %.0f samples/s%s\n",
                    path, (long long)result.progress.epoch, result.progress.loss,
                    result.train_seconds,
                    (double)result.progress.samples /
                        (result.train_seconds > 0 ? result.train_seconds : 1),
                    result.interrupted ? "; interrupted: continue with --resume" : "");
        }
    }
    return true;
}

/* Under torchrun all ranks train the same model, each a part of every batch. */
static bool train_with(train_options *options, ranks *ranks, error *error) {
    market market = {0};
    dataset dataset = {0};
    training_options *training = &options->training;
    training->trainer.ranks = ranks->handle;
    training->trainer.threads = ranks_threads(ranks, training->trainer.threads);
    training->follows = ranks->rank > 0;
    training->quiet |= training->follows;
    parts parts = {0};
    const double begin = progress_clock();
    bool ok = market_read(&market, options->prices, &options->market, error) &&
              dataset_build(&dataset, &market, &options->dataset, NULL, error);
    parts.read = progress_clock() - begin;
    if (ok) {
        if (!training->quiet) {
            dataset_print_counts(&dataset, stderr);
        }
        ok = train_seeds(options, &dataset, &parts, error) && ranks_wait(ranks, "trained", error);
    }
    if (ok && !training->quiet) {
        print_parts(&parts);
    }
    dataset_free(&dataset);
    market_free(&market);
    return ok;
}

static bool train(train_options *options, error *error) {
    ranks ranks;
    if (!ranks_join(&ranks, options->silence, error)) {
        return false;
    }
    const bool ok = train_with(options, &ranks, error);
    ranks_leave(&ranks);
    return ok;
}

/* Carries the command line's numbers to the structs that they belong to. */
static void apply(train_options *options) {
    rp_trainer_options *trainer = &options->training.trainer;
    trainer->threads = (int32_t)options->threads;
    trainer->model.hidden = (int32_t)options->hidden;
    trainer->model.layers = (int32_t)options->layers;
    trainer->model.time_steps = (int32_t)options->time_steps;
    trainer->model.dropout = (float)options->dropout;
    options->dataset.time_steps = (int32_t)options->time_steps;
    options->dataset.embargo_days = (int32_t)options->embargo;
    if (options->training.patience > 0 && options->dataset.validation_fraction == 0) {
        options->dataset.validation_fraction = 0.1;
    }
}

int cmd_train(int argc, char **argv) {
    train_options o = {.threads = 0, .seeds = 1, .hidden = 64, .layers = 2, .time_steps = 20};
    o.dropout = 0.2;
    o.silence = RANKS_SILENCE_SECONDS;
    o.training.epochs = 10;
    rp_trainer_options_init(&o.training.trainer);
    dataset_options_init(&o.dataset);
    rp_trainer_options *trainer = &o.training.trainer;
    static const char *const precisions[] = {"fp16", "bf16", "tf32", "fp32", NULL};
    option options[] = {
        MARKET_OPTIONS(o.prices, o.market),
        {"checkpoint", OPTION_STRING, &o.training.checkpoint, "FILE",
         "where the trained model goes (.safetensors)", .required = true},
        {"configuration", OPTION_STRING, &trainer->configuration, "NAME",
         "cpu, cpu-fused, gpu, gpu-kernel, gpu-graph or gpu-fused"},
        {"precision", OPTION_STRING, &trainer->precision, "P",
         "of the operands (default: the configuration's fastest)", .choices = precisions},
        {"epochs", OPTION_INT64, &o.training.epochs, "N", "passes over the training windows",
         .least = 1, .most = 100000},
        {"batch", OPTION_INT64, &trainer->batch, "B", "windows an optimiser step", .least = 2,
         .most = 1 << 20},
        {"learning-rate", OPTION_DOUBLE, &trainer->learning_rate, "R", "Adam's step size",
         .least = 1e-12, .most = 1e30},
        {"seed", OPTION_UINT64, &trainer->seed, "S", "of weights, sample order and dropout"},
        {"seeds", OPTION_INT64, &o.seeds, "K", "train K models, seeds S, S+1, ...: FILE.seedS...",
         .least = 1, .most = 1000},
        {"patience", OPTION_INT64, &o.training.patience, "N",
         "stop after N epochs without a better validation loss and keep the best weights; 0: off",
         .least = 0, .most = 100000},
        {"validation", OPTION_DOUBLE, &o.dataset.validation_fraction, "X",
         "latest fraction of the training windows held out (0.1 with --patience)", .least = 0,
         .most = 0.5},
        {"embargo", OPTION_INT64, &o.embargo, "D", "trading days left out before each cut",
         .least = 0, .most = 1000},
        {"hidden", OPTION_INT64, &o.hidden, "H", "units a layer", .least = 1, .most = 512},
        {"layers", OPTION_INT64, &o.layers, "L", "LSTM layers", .least = 1, .most = 4},
        {"time-steps", OPTION_INT64, &o.time_steps, "T", "days a window", .least = 1, .most = 64},
        {"dropout", OPTION_DOUBLE, &o.dropout, "P", "between layers", .least = 0, .most = 0.99},
        {"threads", OPTION_INT64, &o.threads, "N", "on the CPU; 0: one a core", .least = 0,
         .most = 1024},
        {"resume", OPTION_FLAG, &o.training.resume, NULL, "continue FILE when it is there"},
        {"checkpoint-every", OPTION_INT64, &o.training.checkpoint_every, "N",
         "steps between saves; 0: at ends of epochs, at most one a second", .least = 0,
         .most = 1e12},
        {"log", OPTION_STRING, &o.training.log, "FILE", "JSON lines, one an epoch"},
        {"rank-silence", OPTION_INT64, &o.silence, "S",
         "seconds without life after which another rank counts as dead", .least = 1, .most = 3600},
        {"quiet", OPTION_FLAG, &o.training.quiet, NULL, "only errors"},
    };
    int status;
    if (!OPTIONS_PARSE("train", "Trains a model and writes its checkpoint.", options, argc, argv,
                       &status)) {
        return status;
    }
    apply(&o);
    error error = {0};
    if (!train(&o, &error)) {
        fprintf(stderr, "return-predictor train: %s\n", error.message);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
