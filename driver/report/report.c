#include "report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
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

void report_add_model(report *report, const report_model *model) {
    report->models[report->model_count++] = *model;
}

void report_free(report *report) {
    for (int32_t i = 0; i < report->model_count; i++) {
        free(report->models[i].forecast);
    }
    panel_free(&report->panel);
    baselines_free(&report->baselines);
    daily_free(&report->daily);
    coverage_free(&report->coverage);
    memset(report, 0, sizeof *report);
}

/* Statistics of every model; the first keeps its days and gets intervals. */
static bool measure_models(report *r, error *error) {
    for (int32_t i = 0; i < r->model_count; i++) {
        daily measured;
        if (!daily_measure(&measured, &r->panel, r->models[i].forecast, r->baselines.train_mean,
                           error)) {
            return false;
        }
        daily_summarise(&r->model_statistics[i], &measured, NULL, measured.days);
        if (i == 0) {
            r->daily = measured;
        } else {
            daily_free(&measured);
        }
    }
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        moments seeds = {0};
        for (int32_t i = 0; i < r->model_count; i++) {
            moments_add(&seeds, r->model_statistics[i].value[s]);
        }
        r->seed_mean.value[s] = moments_mean(&seeds);
        r->seed_deviation.value[s] = moments_deviation(&seeds);
    }
    return bootstrap_intervals(&r->intervals, &r->daily, BOOTSTRAP_SEED, error);
}

static bool measure_baselines(report *r, error *error) {
    double *forecast = malloc((size_t)r->panel.rows * sizeof *forecast);
    bool ok = forecast || error_set(error, "out of memory for the baselines' forecasts");
    for (int b = 0; ok && b < BASELINE_COUNT; b++) {
        daily measured;
        baselines_forecast(forecast, &r->baselines, (baseline)b, r->dataset, &r->panel);
        ok = daily_measure(&measured, &r->panel, forecast, r->baselines.train_mean, error);
        if (ok) {
            daily_summarise(&r->baseline_statistics[b], &measured, NULL, measured.days);
            ok = bootstrap_intervals(&r->baseline_intervals[b], &measured, BOOTSTRAP_SEED, error);
            daily_free(&measured);
        }
    }
    free(forecast);
    return ok;
}

bool report_finish(report *r, error *error) {
    if (!measure_models(r, error) || !measure_baselines(r, error)) {
        return false;
    }
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
