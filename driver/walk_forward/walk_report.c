#include "walk_forward/walk_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "report/forecast.h"
#include "report/rank.h"

/* Rows [first, end) of a panel, enough of it for what forecasts row by row. */
static panel rows_of(const panel *panel, int64_t first_day, int64_t end_day) {
    const int64_t first = panel->day_first[first_day];
    return (struct panel){.rows = panel->day_first[end_day] - first,
                          .window_end = panel->window_end + first};
}

static int64_t first_day(const panel *panel, int32_t date) {
    int64_t day = 0;
    while (day < panel->days && panel->day_date[day] < date) {
        day++;
    }
    return day;
}

static double *numbers(int64_t count, error *error) {
    double *out = malloc((size_t)(count + 1) * sizeof *out);
    if (!out) {
        error_set(error, "out of memory for %lld forecasts", (long long)count);
        return NULL;
    }
    for (int64_t i = 0; i < count; i++) {
        out[i] = NAN;
    }
    return out;
}

static bool allocate(walk_report *w, error *error) {
    const walk_options *options = w->plan->options;
    const int64_t rows = w->report.panel.rows;
    w->windows = calloc((size_t)w->plan->window_count, sizeof *w->windows);
    w->series = calloc((size_t)(options->rate_count * options->seeds), sizeof *w->series);
    if (!w->windows || !w->series) {
        return error_set(error, "out of memory for the walk-forward report");
    }
    w->series_count = (int32_t)(options->rate_count * options->seeds);
    for (int32_t i = 0; i < w->series_count; i++) {
        walk_series *series = &w->series[i];
        series->rate = i / (int32_t)options->seeds;
        const unsigned long long seed =
            options->first_seed + (unsigned long long)(i % options->seeds);
        snprintf(series->seed, sizeof series->seed, "%llu", seed);
        snprintf(series->name, sizeof series->name, "rate%g_seed%llu", options->rates[series->rate],
                 seed);
        if (!(series->forecast = numbers(rows, error)) ||
            !(series->before = numbers(rows, error))) {
            return false;
        }
    }
    for (int b = 0; b < BASELINE_COUNT; b++) {
        if (!(w->report.baseline_forecast[b] = numbers(rows, error))) {
            return false;
        }
    }
    return true;
}

static bool forecast_baselines(walk_report *w, int32_t window, const dataset *dataset,
                               const dataset_metadata *metadata, error *error) {
    const int64_t *day_first = w->report.panel.day_first;
    const int64_t first = day_first[w->windows[window].first_day];
    const int64_t count = day_first[w->windows[window].end_day] - first;
    baselines fitted;
    if (!baselines_fit(&fitted, dataset, window_range_train(metadata), error)) {
        return false;
    }
    for (int b = 0; b < BASELINE_COUNT; b++) {
        baselines_forecast(w->report.baseline_forecast[b] + first, &fitted, (baseline)b, dataset,
                           &w->report.panel, first, count);
    }
    baselines_free(&fitted);
    return true;
}

/* One model over the days of its own window and of the next one. */
static bool forecast_job(walk_report *w, walk_job *job, walk_series *series, const dataset *dataset,
                         error *error) {
    char path[WALK_PATH_SIZE];
    model model;
    if (!walk_job_path(path, w->plan, job, error)) {
        return false;
    }
    if (!job->failure.message[0] && !walk_job_finished(w->plan, job)) {
        error_set(&job->failure, "there is no %s; another rank's messages say why", path);
    }
    if (job->failure.message[0] || !model_load(&model, path, 0, &job->failure)) {
        series->missing++;
        return true;
    }
    const audit found = audit_checkpoint(&model.metadata, dataset);
    w->report.audit.scaler_differs |= found.scaler_differs;
    w->report.audit.split_differs |= found.split_differs;
    const panel *whole = &w->report.panel;
    bool ok = true;
    for (int32_t next = 0; ok && next < 2 && job->window + next < w->plan->window_count; next++) {
        const walk_window_result *days = &w->windows[job->window + next];
        const panel part = rows_of(whole, days->first_day, days->end_day);
        ok = forecast_run((next ? series->before : series->forecast) +
                              whole->day_first[days->first_day],
                          model.predictor, dataset, &part, error);
    }
    model_free(&model);
    return ok;
}

static bool forecast_window(walk_report *w, walk_plan *plan, int32_t window, error *error) {
    dataset built = {0};
    const dataset *dataset = window == 0 ? &w->dataset : &built;
    dataset_metadata metadata;
    if (window > 0 &&
        !dataset_build(&built, plan->market, &plan->windows[window].dataset, NULL, error)) {
        return false;
    }
    dataset_metadata_describe(&metadata, dataset, NULL);
    bool ok = forecast_baselines(w, window, dataset, &metadata, error);
    for (int32_t i = 0; ok && i < w->series_count; i++) {
        ok = forecast_job(w, &plan->jobs[window * w->series_count + i], &w->series[i], dataset,
                          error);
    }
    if (window > 0) {
        dataset_free(&built);
    }
    return ok;
}

static void copy_rows(double *out, const void *context, int64_t first, int64_t count) {
    memcpy(out, (const double *)context + first, (size_t)count * sizeof *out);
}

/* Each complete series' mean IC in each window. */
static bool measure_windows(walk_report *w, error *error) {
    for (int32_t i = 0; i < w->report.model_count; i++) {
        daily measured;
        if (!daily_measure(&measured, &w->report.panel, copy_rows, w->report.models[i].forecast,
                           w->report.baselines.train_mean, error)) {
            return false;
        }
        for (int32_t k = 0; k < w->plan->window_count; k++) {
            walk_window_result *window = &w->windows[k];
            moments ic = {0}, rank_ic = {0};
            for (int64_t day = window->first_day; day < window->end_day; day++) {
                moments_add(&ic, measured.ic[day]);
                moments_add(&rank_ic, measured.rank_ic[day]);
            }
            moments_add(&window->ic, moments_mean(&ic));
            moments_add(&window->rank_ic, moments_mean(&rank_ic));
        }
        daily_free(&measured);
    }
    return true;
}

/* The forecast averaged over the complete seeds of one learning rate. */
static bool measure_mean(walk_report *w, int32_t rate, error *error) {
    const int64_t rows = w->report.panel.rows;
    double *mean = numbers(rows, error);
    if (!mean) {
        return false;
    }
    memset(mean, 0, (size_t)rows * sizeof *mean);
    int32_t count = 0;
    for (int32_t i = 0; i < w->series_count; i++) {
        if (w->series[i].rate == rate && w->series[i].missing == 0) {
            count++;
            for (int64_t row = 0; row < rows; row++) {
                mean[row] += (w->series[i].forecast[row] - mean[row]) / count;
            }
        }
    }
    w->seeds_of_rate[rate] = count;
    daily measured;
    bool ok = count == 0 || daily_measure(&measured, &w->report.panel, copy_rows, mean,
                                          w->report.baselines.train_mean, error);
    if (ok && count > 0) {
        daily_summarise(&w->mean_of_seeds[rate], &measured, NULL, measured.days);
        daily_free(&measured);
    }
    free(mean);
    return ok;
}

/* How alike the day's stocks are ranked by models that differ in their seed, and by a model and
 * the one before it. ranks [series + 1][widest]; order, scratch [widest]. */
static void measure_agreement(walk_report *w, walk_window_result *window, int64_t day, float *ranks,
                              ranked *order, ranked *scratch) {
    const panel *panel = &w->report.panel;
    const int64_t first = panel->day_first[day], count = panel->day_first[day + 1] - first;
    const int64_t widest = panel_widest_day(panel);
    float *before = ranks + w->series_count * widest;
    for (int32_t i = 0; i < w->series_count; i++) {
        const walk_series *series = &w->series[i];
        if (series->missing > 0) {
            continue;
        }
        float *own = ranks + i * widest;
        rank_sort(order, scratch, series->forecast + first, count);
        rank_assign(own, order, count);
        if (!isnan(series->before[first])) {
            rank_sort(order, scratch, series->before + first, count);
            rank_assign(before, order, count);
            moments_add(&window->refits_agree, rank_correlation(own, before, count));
        }
        for (int32_t j = 0; j < i; j++) {
            if (w->series[j].rate == series->rate && w->series[j].missing == 0) {
                moments_add(&window->seeds_agree, rank_correlation(own, ranks + j * widest, count));
            }
        }
    }
}

static bool measure_stability(walk_report *w, error *error) {
    const int64_t widest = panel_widest_day(&w->report.panel);
    float *ranks = calloc((size_t)(widest * (w->series_count + 1)) + 1, sizeof *ranks);
    ranked *order = calloc(2 * (size_t)widest + 1, sizeof *order);
    const bool ok = (ranks && order) || error_set(error, "out of memory for ranks");
    for (int32_t k = 0; ok && k < w->plan->window_count; k++) {
        walk_window_result *window = &w->windows[k];
        for (int64_t day = window->first_day; day < window->end_day; day++) {
            measure_agreement(w, window, day, ranks, order, order + widest);
        }
        moments_add(&w->seeds_agree, moments_mean(&window->seeds_agree));
        moments_add(&w->refits_agree, moments_mean(&window->refits_agree));
    }
    free(ranks);
    free(order);
    return ok;
}

static bool add_series(walk_report *w, error *error) {
    for (int32_t i = 0; i < w->series_count; i++) {
        if (w->series[i].missing == 0) {
            const report_model model = {.checkpoint = w->series[i].name,
                                        .seed = w->series[i].seed,
                                        .forecast = w->series[i].forecast};
            report_add_model(&w->report, &model);
        }
    }
    return w->report.model_count > 0 ||
           error_set(error, "no learning rate and seed has a model in every window, so there is "
                            "nothing to judge; see the failures above");
}

bool walk_report_make(walk_report *w, walk_plan *plan, error *error) {
    *w = (walk_report){.plan = plan};
    const audit checked = {.checked = true};
    if (!dataset_build(&w->dataset, plan->market, &plan->windows[0].dataset, NULL, error)) {
        return false;
    }
    dataset_metadata_describe(&w->metadata, &w->dataset, NULL);
    bool ok =
        report_begin(&w->report, &w->dataset, &w->metadata, &checked, error) && allocate(w, error);
    for (int32_t k = 0; ok && k < plan->window_count; k++) {
        w->windows[k].first_day = first_day(&w->report.panel, plan->windows[k].test_first_date);
        w->windows[k].end_day = first_day(&w->report.panel, plan->windows[k].end_date);
    }
    for (int32_t k = 0; ok && k < plan->window_count; k++) {
        ok = forecast_window(w, plan, k, error);
    }
    ok = ok && add_series(w, error) && report_finish(&w->report, error) &&
         measure_windows(w, error) && measure_stability(w, error);
    for (int32_t rate = 0; ok && rate < plan->options->rate_count; rate++) {
        ok = measure_mean(w, rate, error);
    }
    if (!ok) {
        walk_report_free(w);
    }
    return ok;
}

void walk_report_free(walk_report *w) {
    for (int32_t i = 0; i < w->series_count; i++) {
        free(w->series[i].before);
        bool given = false; /* to the report */
        for (int32_t m = 0; m < w->report.model_count; m++) {
            given |= w->report.models[m].forecast == w->series[i].forecast;
        }
        if (!given) {
            free(w->series[i].forecast);
        }
    }
    free(w->series);
    free(w->windows);
    report_free(&w->report);
    dataset_free(&w->dataset);
    memset(w, 0, sizeof *w);
}
