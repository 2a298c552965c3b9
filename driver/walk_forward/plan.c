#define _POSIX_C_SOURCE 200809L
#include "walk_forward/plan.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/date.h"
#include "base/file.h"
#include "base/json.h"
#include "dataset/split.h"

/* First and last day of the prices that can end a labelled window. */
static void price_range(const market *market, int32_t *first, int32_t *last) {
    *first = INT32_MAX;
    *last = INT32_MIN;
    for (int32_t i = 0; i < market->count; i++) {
        const ticker *ticker = &market->tickers[i];
        int32_t labelled = ticker->dates[ticker->days - 2]; /* at least MARKET_LEAST_DAYS */
        *first = ticker->dates[0] < *first ? ticker->dates[0] : *first;
        *last = labelled > *last ? labelled : *last;
    }
}

/* First day of a month, counted from January of year 0. */
static int32_t month_start(int64_t month) {
    int32_t days = INT32_MAX;
    (void)date_from_civil(&days, (int32_t)(month / 12), (int32_t)(month % 12) + 1, 1);
    return days;
}

static int64_t month_of(int32_t date) {
    char text[DATE_SIZE];
    date_format(text, date);
    return (text[0] - '0') * 12000 + (text[1] - '0') * 1200 + (text[2] - '0') * 120 +
           (text[3] - '0') * 12 + (text[5] - '0') * 10 + (text[6] - '0') - 1;
}

static bool count_windows(walk_window *window, const market *market, error *error) {
    split split;
    if (!split_find(&split, market, &window->dataset, error)) {
        return false;
    }
    window->train_last_date = window->dataset.train_first_date; /* where it has no windows */
    window->test_last_date = INT32_MIN;
    window->test_first_date = INT32_MAX;
    for (int32_t i = 0; i < market->count; i++) {
        const ticker *ticker = &market->tickers[i];
        int32_t begin, end;
        int64_t ignored = 0;
        split_days(&split, ticker, window->dataset.time_steps, BLOCK_TRAIN, &begin, &end,
                   &window->purged_windows);
        window->train_windows += end - begin;
        if (begin < end && ticker->dates[end - 1] > window->train_last_date) {
            window->train_last_date = ticker->dates[end - 1];
        }
        split_days(&split, ticker, window->dataset.time_steps, BLOCK_TEST, &begin, &end, &ignored);
        for (int32_t day = begin; day < end && ticker->dates[day] < window->end_date; day++) {
            int32_t date = ticker->dates[day];
            window->test_windows++;
            window->test_first_date =
                date < window->test_first_date ? date : window->test_first_date;
            window->test_last_date = date > window->test_last_date ? date : window->test_last_date;
        }
    }
    return true;
}

/* The windows, from the first whose training years the prices cover. */
static bool make_windows(walk_plan *out, error *error) {
    const walk_options *options = out->options;
    int32_t first, last;
    price_range(out->market, &first, &last);
    const int64_t years = 12 * options->train_years, begin = month_of(first) + years;
    const int64_t months = month_of(last) - begin + 1;
    if (months < 1) {
        char from[DATE_SIZE], to[DATE_SIZE];
        date_format(from, first);
        date_format(to, last);
        return error_set(error,
                         "the prices run from %s to %s: after %lld years of training no month is "
                         "left to test; give more prices or a smaller --train-years",
                         from, to, (long long)options->train_years);
    }
    const int64_t count = (months + options->step_months - 1) / options->step_months;
    out->windows = calloc((size_t)count, sizeof *out->windows);
    if (!out->windows) {
        return error_set(error, "out of memory for %lld windows", (long long)count);
    }
    for (int64_t i = 0; i < count; i++) {
        const int64_t month = begin + i * options->step_months;
        walk_window *window = &out->windows[out->window_count];
        *window = (walk_window){.dataset = options->dataset};
        window->dataset.by_date = true;
        window->dataset.test_first_date = month_start(month);
        window->dataset.train_first_date =
            month_start((options->expanding ? begin : month) - years);
        window->end_date = i + 1 < count ? month_start(month + options->step_months) : INT32_MAX;
        char date[DATE_SIZE];
        date_format(date, window->dataset.test_first_date);
        snprintf(window->name, sizeof window->name, "%.7s", date);
        if (!count_windows(window, out->market, error)) {
            return false;
        }
        out->window_count += window->test_windows > 0; /* else there is nothing to forecast */
    }
    return true;
}

static bool make_jobs(walk_plan *out, error *error) {
    const walk_options *options = out->options;
    out->job_count = out->window_count * options->rate_count * options->seeds;
    out->jobs = calloc((size_t)out->job_count + 1, sizeof *out->jobs);
    if (!out->jobs) {
        return error_set(error, "out of memory for %lld models", (long long)out->job_count);
    }
    walk_job *job = out->jobs;
    for (int32_t window = 0; window < out->window_count; window++) {
        for (int32_t rate = 0; rate < options->rate_count; rate++) {
            for (int64_t seed = 0; seed < options->seeds; seed++) {
                *job++ = (walk_job){
                    .window = window, .rate = rate, .seed = options->first_seed + (uint64_t)seed};
            }
        }
    }
    return true;
}

bool walk_plan_make(walk_plan *out, const walk_options *options, const market *market,
                    error *error) {
    *out = (walk_plan){.options = options, .market = market};
    if (!make_windows(out, error) || !make_jobs(out, error)) {
        walk_plan_free(out);
        return false;
    }
    return true;
}

void walk_plan_free(walk_plan *plan) {
    free(plan->windows);
    free(plan->jobs);
    *plan = (walk_plan){0};
}

void walk_job_name(char name[WALK_NAME_SIZE], const walk_plan *plan, const walk_job *job) {
    snprintf(name, WALK_NAME_SIZE, "%s_rate%g_seed%llu", plan->windows[job->window].name,
             plan->options->rates[job->rate], (unsigned long long)job->seed);
}

bool walk_job_path(char path[WALK_PATH_SIZE], const walk_plan *plan, const walk_job *job,
                   error *error) {
    char name[WALK_NAME_SIZE];
    walk_job_name(name, plan, job);
    const int length =
        snprintf(path, WALK_PATH_SIZE, "%s/models/%s.safetensors", plan->options->out, name);
    return (length > 0 && length < WALK_PATH_SIZE) || error_set(error, "--out: path too long");
}

bool walk_job_finished(const walk_plan *plan, const walk_job *job) {
    char path[WALK_PATH_SIZE];
    error error;
    return walk_job_path(path, plan, job, &error) && access(path, F_OK) == 0;
}

int64_t walk_job_steps(const walk_plan *plan, const walk_job *job) {
    const int64_t windows = plan->windows[job->window].train_windows;
    const int64_t batch = plan->options->trainer.batch;
    return plan->options->epochs * (windows / batch + (windows % batch >= 2)); /* see rp.h */
}

/* Everything that the models' bits depend on, but for window, seed and learning rate, which are in
 * their names. */
static void write_settings(json *json, const walk_plan *plan) {
    const walk_options *options = plan->options;
    const rp_trainer_options *trainer = &options->trainer;
    json_object(json, NULL);
    json_string(json, "prices_sha256", plan->market->sha256);
    json_string(json, "window", options->expanding ? "expanding" : "rolling");
    json_int(json, "train_years", options->train_years);
    json_int(json, "test_months", options->test_months);
    json_int(json, "step_months", options->step_months);
    json_int(json, "embargo_days", options->dataset.embargo_days);
    json_int(json, "time_steps", options->dataset.time_steps);
    json_int(json, "hidden", trainer->model.hidden);
    json_int(json, "layers", trainer->model.layers);
    json_double(json, "dropout", (double)trainer->model.dropout);
    json_int(json, "epochs", options->epochs);
    json_int(json, "batch", trainer->batch);
    json_string(json, "configuration", trainer->configuration);
    json_string(json, "precision", trainer->precision);
    json_end(json);
}

bool walk_plan_open_folder(const walk_plan *plan, bool make, error *error) {
    const char *out = plan->options->out;
    char models[WALK_PATH_SIZE], path[WALK_PATH_SIZE];
    if (strlen(out) + sizeof "/settings.json" > sizeof path) {
        return error_set(error, "--out: path too long");
    }
    snprintf(models, sizeof models, "%s/models", out);
    snprintf(path, sizeof path, "%s/settings.json", out);
    json settings = {.lines = 1};
    char *old = NULL;
    size_t size;
    write_settings(&settings, plan);
    const bool there = access(path, F_OK) == 0;
    bool ok = there || make ||
              error_set(error,
                        "%s is not there, though rank 0 has made it: --out must be a folder "
                        "that all ranks share",
                        path);
    ok = ok && (!make || (file_make_folder(out, error) && file_make_folder(models, error)));
    if (ok && there) {
        ok = file_read(path, &old, &size, error);
        if (ok && (!text_ok(&settings.text) ||
                   strncmp(old, settings.text.data, settings.text.length) != 0)) {
            ok = error_set(error,
                           "%s says that the models there were trained otherwise; give the same "
                           "options and prices, or another --out",
                           path);
        }
    } else if (ok) {
        ok = json_write(&settings, path, error);
    }
    free(old);
    json_free(&settings);
    return ok;
}

void walk_plan_print(const walk_plan *plan, FILE *file) {
    const walk_options *options = plan->options;
    int64_t finished = 0;
    for (int64_t i = 0; i < plan->job_count; i++) {
        finished += walk_job_finished(plan, &plan->jobs[i]);
    }
    fprintf(file, "%-8s %-24s %11s %9s  %-24s %9s %15s\n", "window",
            options->expanding ? "trained on (expanding)" : "trained on (rolling)", "windows",
            "left out", "tested on", "windows", "steps a model");
    for (int32_t i = 0; i < plan->window_count; i++) {
        const walk_window *window = &plan->windows[i];
        const walk_job *job = &plan->jobs[i * options->rate_count * options->seeds];
        char date[4][DATE_SIZE];
        date_format(date[0], window->dataset.train_first_date);
        date_format(date[1], window->train_last_date);
        date_format(date[2], window->test_first_date);
        date_format(date[3], window->test_last_date);
        fprintf(file, "%-8s %s to %s %11lld %9lld  %s to %s %9lld %15lld\n", window->name, date[0],
                date[1], (long long)window->train_windows, (long long)window->purged_windows,
                date[2], date[3], (long long)window->test_windows,
                (long long)walk_job_steps(plan, job));
    }
    fprintf(file,
            "%d windows x %d learning rates x %lld seeds = %lld models of %lld epochs by %s, of "
            "which %lld are finished already\n",
            plan->window_count, options->rate_count, (long long)options->seeds,
            (long long)plan->job_count, (long long)options->epochs, options->trainer.configuration,
            (long long)finished);
}
