/* walk-forward: many models, each trained on the years before the days that it forecasts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/options.h"
#include "base/result.h"
#include "command.h"
#include "report/report.h"
#include "training/ranks.h"
#include "walk_forward/walk_report.h"
#include "walk_forward/walk_training.h"

typedef struct command_options {
    const char *prices, *window;
    market_options market;
    walk_options walk;
    string_list rates;
    int64_t embargo, hidden, layers, time_steps, threads, silence;
    double dropout;
} command_options;

/* Carries the command line to the structs that its numbers belong to; false: a usage error. */
static bool apply(command_options *o, error *error) {
    walk_options *walk = &o->walk;
    rp_trainer_options *trainer = &walk->trainer;
    trainer->model.hidden = (int32_t)o->hidden;
    trainer->model.layers = (int32_t)o->layers;
    trainer->model.time_steps = (int32_t)o->time_steps;
    trainer->model.dropout = (float)o->dropout;
    walk->dataset.time_steps = (int32_t)o->time_steps;
    walk->dataset.embargo_days = (int32_t)o->embargo;
    walk->expanding = strcmp(o->window, "expanding") == 0;
    walk->threads = (int32_t)o->threads;
    /* Many models side by side, a core each, or one after another on all of them. */
    trainer->threads = strcmp(trainer->configuration, "cpu-fused") == 0 ? 1 : walk->threads;
    walk->rate_count = o->rates.count;
    if (o->rates.count == 0) {
        walk->rates[walk->rate_count++] = trainer->learning_rate;
    }
    if (o->rates.count > WALK_RATES) {
        return error_set(error, "--learning-rates: at most %d", WALK_RATES);
    }
    for (int32_t i = 0; i < o->rates.count; i++) {
        if (!parse_double(o->rates.items[i], &walk->rates[i]) || !(walk->rates[i] > 0)) {
            return error_set(error, "--learning-rates: \"%s\" is not a positive number",
                             o->rates.items[i]);
        }
    }
    if (walk->rate_count * walk->seeds > REPORT_MODELS) {
        return error_set(error, "--seeds: %d learning rates x %lld seeds are more than %d",
                         walk->rate_count, (long long)walk->seeds, REPORT_MODELS);
    }
    if (walk->step_months > walk->test_months) {
        return error_set(error,
                         "--step-months: %lld is more than --test-months %lld, so days "
                         "would be left without a forecast",
                         (long long)walk->step_months, (long long)walk->test_months);
    }
    return true;
}

static bool write_result(const walk_plan *plan, const walk_training_result *trained,
                         const walk_report *report, int argc, char **argv, error *error) {
    char path[WALK_PATH_SIZE];
    rp_machine machine;
    const bool cpu = strcmp(plan->options->trainer.configuration, "cpu-fused") == 0;
    if (!cpu && rp_machine_describe(&machine) != RP_OK) {
        return error_set(error, "the machine can't be described: %s", rp_last_error());
    }
    json json = {.lines = 3};
    result_begin(&json, argc, argv, cpu ? NULL : &machine);
    int64_t windows = 0;
    for (int32_t i = 0; i < plan->window_count; i++) {
        windows += plan->windows[i].train_windows;
    }
    json_int(&json, "models", plan->job_count);
    json_int(&json, "samples_per_model", windows / plan->window_count * plan->options->epochs);
    json_int(&json, "models_trained", trained->trained); /* by this run; others were finished */
    json_double(&json, "train_seconds", trained->train_seconds);
    json_double(&json, "models_per_second", (double)trained->trained / trained->train_seconds);
    json_double(&json, "samples_per_second", (double)trained->samples / trained->train_seconds);
    json_object(&json, "report");
    walk_report_json(&json, report);
    json_end(&json);
    json_end(&json);
    const int length = snprintf(path, sizeof path, "%s/walk_forward.json", plan->options->out);
    const bool ok = ((length > 0 && length < (int)sizeof path) ||
                     error_set(error, "--out: the path is too long")) &&
                    json_write(&json, path, error);
    json_free(&json);
    return ok;
}

static bool write_forecasts(const walk_plan *plan, const report *report, error *error) {
    char path[WALK_PATH_SIZE];
    const int length = snprintf(path, sizeof path, "%s/forecasts.csv", plan->options->out);
    if (length < 0 || length >= (int)sizeof path) {
        return error_set(error, "--out: the path is too long");
    }
    text table = {0};
    const bool ok = report_forecasts(&table, report, error) && file_write_text(path, &table, error);
    text_free(&table);
    return ok;
}

static bool judge(walk_plan *plan, const walk_training_result *trained, int argc, char **argv,
                  error *error) {
    walk_report report;
    if (!walk_report_make(&report, plan, error)) {
        return false;
    }
    text table = {0};
    walk_report_text(&table, &report);
    const bool ok = file_print_text(&table, error) &&
                    write_result(plan, trained, &report, argc, argv, error) &&
                    write_forecasts(plan, &report.report, error);
    text_free(&table);
    walk_report_free(&report);
    return ok;
}

/* Rank 0 makes the folder before the others look into it. */
static bool open_folder(const walk_plan *plan, ranks *ranks, error *error) {
    return (ranks->rank > 0 || walk_plan_open_folder(plan, true, error)) &&
           ranks_wait(ranks, "folder", error) &&
           (ranks->rank == 0 || walk_plan_open_folder(plan, false, error));
}

static bool walk_with(command_options *o, ranks *ranks, int argc, char **argv, error *error) {
    market market = {0};
    walk_plan plan = {0};
    walk_training_result trained;
    const bool speaks = ranks->rank == 0 && !o->walk.quiet;
    bool ok = market_read(&market, o->prices, &o->market, error) &&
              walk_plan_make(&plan, &o->walk, &market, error) && open_folder(&plan, ranks, error);
    if (ok && speaks) {
        walk_plan_print(&plan, stderr);
    }
    ok = ok && walk_train(&trained, &plan, ranks, error);
    if (ok && speaks) {
        fprintf(stderr, "%lld models trained in %.1f s, %lld failed%s\n",
                (long long)trained.trained, trained.train_seconds, (long long)trained.failed,
                trained.interrupted ? "; interrupted: the same command goes on" : "");
    }
    if (ok && ranks->rank == 0 && !trained.interrupted) {
        ok = judge(&plan, &trained, argc, argv, error);
    }
    walk_plan_free(&plan);
    market_free(&market);
    return ok;
}

static bool walk(command_options *o, int argc, char **argv, error *error) {
    ranks ranks;
    if (!ranks_join(&ranks, o->silence, error)) {
        return false;
    }
    o->walk.threads = ranks_threads(&ranks, o->walk.threads);
    const bool ok = walk_with(o, &ranks, argc, argv, error);
    ranks_leave(&ranks);
    return ok;
}

int cmd_walk_forward(int argc, char **argv) {
    command_options o = {.window = "rolling", .hidden = 64, .layers = 2, .time_steps = 20};
    walk_options *walk_options = &o.walk;
    o.dropout = 0.2;
    o.silence = RANKS_SILENCE_SECONDS;
    *walk_options = (struct walk_options){.train_years = 5,
                                          .test_months = 1,
                                          .step_months = 1,
                                          .first_seed = 1,
                                          .seeds = 5,
                                          .epochs = 10,
                                          .out = "walk_forward"};
    dataset_options_init(&o.walk.dataset);
    rp_trainer_options *trainer = &o.walk.trainer;
    rp_trainer_options_init(trainer);
    trainer->configuration = "cpu-fused";
    static const char *const windows[] = {"rolling", "expanding", NULL};
    static const char *const precisions[] = {"fp16", "bf16", "tf32", "fp32", NULL};
    option options[] = {
        MARKET_OPTIONS(o.prices, o.market),
        {"out", OPTION_STRING, &walk_options->out, "DIR",
         "models, forecasts and report; what is finished there is kept"},
        {"train-years", OPTION_INT64, &walk_options->train_years, "Y",
         "years of training before the test days", .least = 1, .most = 100},
        {"test-months", OPTION_INT64, &walk_options->test_months, "M", "that a model may forecast",
         .least = 1, .most = 120},
        {"step-months", OPTION_INT64, &walk_options->step_months, "M", "from one refit to the next",
         .least = 1, .most = 120},
        {"window", OPTION_STRING, &o.window, "KIND", "of the training years", .choices = windows},
        {"embargo", OPTION_INT64, &o.embargo, "D", "trading days left out before the test days",
         .least = 0, .most = 1000},
        {"seeds", OPTION_INT64, &walk_options->seeds, "K", "models that differ in their seed",
         .least = 1, .most = REPORT_MODELS},
        {"seed", OPTION_UINT64, &walk_options->first_seed, "S", "the first of them"},
        {"learning-rates", OPTION_LIST, &o.rates, "R,...", "one model each (default: 0.001)"},
        {"configuration", OPTION_STRING, &trainer->configuration, "NAME",
         "cpu-fused or gpu-fused, which train many models side by side; or any of train's"},
        {"precision", OPTION_STRING, &trainer->precision, "P",
         "of the operands (default: the configuration's fastest)", .choices = precisions},
        {"epochs", OPTION_INT64, &walk_options->epochs, "N", "passes over the training windows",
         .least = 1, .most = 100000},
        {"batch", OPTION_INT64, &trainer->batch, "B", "windows an optimiser step", .least = 2,
         .most = 1 << 20},
        {"hidden", OPTION_INT64, &o.hidden, "H", "units a layer", .least = 1, .most = 512},
        {"layers", OPTION_INT64, &o.layers, "L", "LSTM layers", .least = 1, .most = 4},
        {"time-steps", OPTION_INT64, &o.time_steps, "T", "days a window", .least = 1, .most = 64},
        {"dropout", OPTION_DOUBLE, &o.dropout, "P", "between layers", .least = 0, .most = 0.99},
        {"threads", OPTION_INT64, &o.threads, "N", "models at a time on the CPU; 0: one a core",
         .least = 0, .most = 1024},
        {"rank-silence", OPTION_INT64, &o.silence, "S",
         "seconds without life after which another rank counts as dead", .least = 1, .most = 3600},
        {"quiet", OPTION_FLAG, &walk_options->quiet, NULL, "only errors"},
    };
    int status;
    if (!OPTIONS_PARSE("walk-forward",
                       "Refits the model month by month, over seeds and learning rates, and judges "
                       "all of it out of sample.",
                       options, argc, argv, &status)) {
        return status;
    }
    error error = {""};
    if (!apply(&o, &error)) {
        fprintf(stderr, "return-predictor walk-forward: %s\n", error.message);
        return EXIT_USAGE;
    }
    if (!walk(&o, argc, argv, &error)) {
        fprintf(stderr, "return-predictor walk-forward: %s\n", error.message);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
