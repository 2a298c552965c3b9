#define _POSIX_C_SOURCE 200809L
#include "serve/snapshot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/date.h"
#include "report/conformal.h"

enum { FILL_ROWS = 4096 };

static bool load_model(snapshot *s, const char *path, error *error) {
    if (!model_load(&s->model, path, 0, error)) {
        return false;
    }
    if (rp_checkpoint_model(&s->shape, s->model.checkpoint) != RP_OK ||
        rp_model_parameter_count(&s->parameters, &s->shape) != RP_OK) {
        return error_set(error, "%s: %s", path, rp_last_error());
    }
    s->time_steps = s->shape.time_steps;
    s->predictors = calloc((size_t)s->workers, sizeof *s->predictors);
    if (!s->predictors) {
        return error_set(error, "%s: no memory for its predictors", path);
    }
    for (int32_t i = 0; i < s->workers; i++) {
        if (rp_predictor_create(&s->predictors[i], s->model.checkpoint, 1) != RP_OK) {
            return error_set(error, "%s: %s", path, rp_last_error());
        }
    }
    return true;
}

static bool load_data(snapshot *s, const char *path, error *error) {
    if (!market_read(&s->market, path, &(market_options){0}, error) ||
        !model_dataset(&s->dataset, &s->model, &s->market, error)) {
        return false;
    }
    s->predictions = malloc((size_t)s->dataset.rows * sizeof *s->predictions);
    return s->predictions ||
           error_set(error, "no memory for %lld predictions", (long long)s->dataset.rows);
}

bool snapshot_load(snapshot **out, const snapshot_sources *sources, int32_t workers, error *error) {
    *out = NULL;
    snapshot *s = calloc(1, sizeof *s);
    if (!s) {
        return error_set(error, "no memory");
    }
    atomic_init(&s->references, 1);
    atomic_init(&s->predicted, 0);
    s->workers = workers;
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(s->loaded_at, sizeof s->loaded_at, "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (!load_model(s, sources->checkpoint, error) || !load_data(s, sources->prices, error) ||
        !evidence_read(&s->evidence, sources->benchmark, sources->report, error)) {
        snapshot_release(s);
        return false;
    }
    *out = s;
    return true;
}

snapshot *snapshot_hold(snapshot *snapshot) {
    atomic_fetch_add_explicit(&snapshot->references, 1, memory_order_relaxed);
    return snapshot;
}

void snapshot_release(snapshot *s) {
    if (!s || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (int32_t i = 0; s->predictors && i < s->workers; i++) {
        rp_predictor_free(s->predictors[i]);
    }
    free(s->predictors);
    free(s->predictions);
    dataset_free(&s->dataset);
    market_free(&s->market);
    model_free(&s->model);
    free(s);
}

bool snapshot_fill(snapshot *s) {
    int32_t ends[FILL_ROWS];
    float values[FILL_ROWS];
    int64_t first = atomic_load_explicit(&s->predicted, memory_order_relaxed);
    int64_t last = first + FILL_ROWS < s->dataset.rows ? first + FILL_ROWS : s->dataset.rows;
    int64_t count = 0;
    for (int64_t row = first; row < last; row++) {
        const int32_t index = dataset_ticker(&s->dataset, row);
        s->predictions[row] = NAN;
        if (row - s->dataset.first_row[index] >= s->time_steps - 1) {
            ends[count++] = (int32_t)row;
        }
    }
    if (count > 0 && rp_predictor_run(values, s->model.predictor, s->dataset.features,
                                      s->dataset.rows, ends, count) != RP_OK) {
        return false; /* the rows stay unfilled and are computed when asked for */
    }
    for (int64_t i = 0; i < count; i++) {
        s->predictions[ends[i]] = values[i];
    }
    atomic_store_explicit(&s->predicted, last, memory_order_release);
    return last < s->dataset.rows;
}

forecast snapshot_forecast(const snapshot *s, float value, double volatility) {
    forecast forecast = {.value = value, .has_intervals = s->model.metadata.calibrated};
    for (int level = 0; level < CONFORMAL_LEVELS && forecast.has_intervals; level++) {
        double half = conformal_half_width(&s->model.metadata.intervals, level, volatility);
        forecast.interval[level][0] = value - half;
        forecast.interval[level][1] = value + half;
    }
    return forecast;
}

double snapshot_volatility(const snapshot *s, const float *window) {
    const scaler *scaler = &s->model.metadata.scaler;
    const float last = window[(s->time_steps - 1) * DATASET_FEATURES + FEATURE_VOL20];
    double volatility = scaler->mean[FEATURE_VOL20] + scaler->sd[FEATURE_VOL20] * last;
    return volatility > 0 ? volatility : 0;
}

bool snapshot_find(int64_t *row, const snapshot *s, const char *ticker, bool has_date, int32_t date,
                   error *error) {
    const int32_t index = market_find(&s->market, ticker);
    if (index < 0) {
        return error_set(error, "no ticker '%s' here; GET /tickers lists them", ticker);
    }
    const int64_t first = s->dataset.first_row[index] + s->time_steps - 1;
    const int64_t last = s->dataset.first_row[index + 1] - 1;
    *row = has_date ? dataset_find_row(&s->dataset, index, date) : last;
    if (*row >= first && *row <= last) {
        return true;
    }
    char from[DATE_SIZE], to[DATE_SIZE];
    date_format(to, dataset_date(&s->dataset, last));
    if (first > last) {
        return error_set(error, "ticker %s has %d days; %d are needed", ticker,
                         s->market.tickers[index].days, DATASET_WARM_UP + s->time_steps);
    }
    date_format(from, dataset_date(&s->dataset, first));
    return error_set(error,
                     "ticker %s has no prediction for that day: its trading days with %d "
                     "days of history are %s to %s",
                     ticker, DATASET_WARM_UP + s->time_steps - 1, from, to);
}
