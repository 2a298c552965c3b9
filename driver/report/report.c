#include "report/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "base/parallel.h"
#include "report/series.h"

enum { BOOTSTRAP_SEED = 20 };

bool report_begin(report *out, const dataset *dataset, const dataset_metadata *metadata,
                  const audit *audit, error *error) {
    memset(out, 0, sizeof *out);
    out->dataset = dataset;
    out->metadata = metadata;
    out->audit = *audit;
    if (!panel_select(&out->panel, dataset, window_range_test(metadata), error)) {
        return false;
    }
    if (out->panel.rows == 0) {
        char date[DATE_SIZE];
        date_format(date, metadata->test_first_date);
        panel_free(&out->panel);
        return error_set(error,
                         "the prices have no labelled window from %s on, where the checkpoint's "
                         "test period begins; give later prices",
                         date);
    }
    if (!baselines_fit(&out->baselines, dataset, window_range_train(metadata), error)) {
        panel_free(&out->panel);
        return false;
    }
    return true;
}

void report_baseline(double *forecast, const report *report, baseline which, int64_t first,
                     int64_t count) {
    const double *known = report->baseline_forecast[which];
    if (known) {
        memcpy(forecast, known + first, (size_t)count * sizeof *forecast);
    } else {
        baselines_forecast(forecast, &report->baselines, which, report->dataset, &report->panel,
                           first, count);
    }
}

void report_add_model(report *report, const report_model *model) {
    report->models[report->model_count++] = *model;
}

void report_free(report *report) {
    for (int32_t i = 0; i < report->model_count; i++) {
        free(report->models[i].forecast);
    }
    for (int b = 0; b < BASELINE_COUNT; b++) {
        free(report->baseline_forecast[b]);
    }
    panel_free(&report->panel);
    baselines_free(&report->baselines);
    daily_free(&report->daily);
    coverage_free(&report->coverage);
    memset(report, 0, sizeof *report);
}

/* A forecast to be measured: a model's or, from model_count on, a baseline's. */
typedef struct measured_forecast {
    const report *report;
    int32_t index;
} measured_forecast;

static void forecast_of(double *out, const void *context, int64_t first, int64_t count) {
    const measured_forecast *which = context;
    const report *r = which->report;
    if (which->index < r->model_count) {
        memcpy(out, r->models[which->index].forecast + first, (size_t)count * sizeof *out);
    } else {
        report_baseline(out, r, (baseline)(which->index - r->model_count), first, count);
    }
}

typedef struct measuring {
    report *report;
    bool ok[REPORT_MODELS + BASELINE_COUNT];
    error error[REPORT_MODELS + BASELINE_COUNT];
} measuring;

/* The first model keeps its days; it and the baselines get intervals. */
static bool measure(report *r, int32_t index, error *error) {
    const measured_forecast which = {r, index};
    const int32_t b = index - r->model_count;
    daily measured;
    if (!daily_measure(&measured, &r->panel, forecast_of, &which, r->baselines.train_mean, error)) {
        return false;
    }
    daily_summarise(b < 0 ? &r->model_statistics[index] : &r->baseline_statistics[b], &measured,
                    NULL, measured.days);
    bool ok = true;
    if (b >= 0 || index == 0) {
        ok = bootstrap_intervals(b < 0 ? &r->intervals : &r->baseline_intervals[b], &measured,
                                 BOOTSTRAP_SEED, error);
    }
    if (index == 0) {
        r->daily = measured;
    } else {
        daily_free(&measured);
    }
    return ok;
}

static void measure_one(int64_t index, void *context) {
    measuring *work = context;
    work->ok[index] = measure(work->report, (int32_t)index, &work->error[index]);
}

static bool measure_all(report *r, error *error) {
    const int32_t count = r->model_count + BASELINE_COUNT;
    measuring work = {.report = r};
    parallel_for(count, measure_one, &work);
    for (int32_t i = 0; i < count; i++) {
        if (!work.ok[i]) {
            *error = work.error[i];
            return false;
        }
    }
    return true;
}

static void summarise_seeds(report *r) {
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        moments seeds = {0};
        for (int32_t i = 0; i < r->model_count; i++) {
            moments_add(&seeds, r->model_statistics[i].value[s]);
        }
        r->seed_mean.value[s] = moments_mean(&seeds);
        r->seed_deviation.value[s] = moments_deviation(&seeds);
    }
}

bool report_finish(report *r, error *error) {
    if (!measure_all(r, error)) {
        return false;
    }
    summarise_seeds(r);
    if (r->metadata->calibrated &&
        !coverage_measure(&r->coverage, &r->metadata->intervals, r->dataset, &r->panel,
                          r->models[0].forecast, error)) {
        return false;
    }
    verdict_evidence evidence = {.model = &r->model_statistics[0],
                                 .intervals = &r->intervals,
                                 .models = r->model_statistics,
                                 .model_count = r->model_count,
                                 .baselines = r->baseline_statistics,
                                 .audit = r->audit};
    verdict_reach(&r->verdict, &evidence);
    return true;
}
