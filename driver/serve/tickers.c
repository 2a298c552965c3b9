/* GET /tickers: the latest prediction of each. GET /tickers/{ticker}: all days of one, by column,
 * for the dashboard's charts. */
#include "serve/tickers.h"

#include <math.h>

#include "base/date.h"
#include "serve/handlers.h"
#include "serve/response.h"

bool tickers_latest(latest *out, const snapshot *snapshot, int32_t index) {
    const dataset *dataset = &snapshot->dataset;
    const int64_t row = dataset->first_row[index + 1] - 1;
    if (row < dataset->first_row[index] + snapshot->time_steps - 1 ||
        row >= atomic_load_explicit(&snapshot->predicted, memory_order_acquire)) {
        return false;
    }
    const ticker *ticker = &snapshot->market.tickers[index];
    out->name = ticker->name;
    date_format(out->date, dataset_date(dataset, row));
    out->adj_close = ticker->adj_close[dataset_day(dataset, row)];
    out->forecast =
        snapshot_forecast(snapshot, snapshot->predictions[row], dataset_volatility(dataset, row));
    return true;
}

static void write_interval(json *json, const char *key, const forecast *forecast, int level) {
    if (!forecast->has_intervals) {
        json_null(json, key);
        return;
    }
    json_array(json, key);
    json_double(json, NULL, forecast->interval[level][0]);
    json_double(json, NULL, forecast->interval[level][1]);
    json_end(json);
}

void handle_tickers(request *request) {
    const snapshot *snapshot = request->snapshot;
    json json = {.lines = 2};
    json_object(&json, NULL);
    json_string(&json, "model_version", snapshot->model.version);
    json_array(&json, "tickers");
    for (int32_t i = 0; i < snapshot->market.count; i++) {
        latest latest;
        json_object(&json, NULL);
        json_string(&json, "ticker", snapshot->market.tickers[i].name);
        if (tickers_latest(&latest, snapshot, i)) {
            json_string(&json, "date", latest.date);
            json_double(&json, "adj_close", latest.adj_close);
            json_double(&json, "predicted_return", latest.forecast.value);
            write_interval(&json, "interval_80", &latest.forecast, 0);
            write_interval(&json, "interval_95", &latest.forecast, 1);
        }
        json_end(&json);
    }
    json_end(&json);
    json_end(&json);
    response_send_json(request, 200, &json);
}

/* ---- One ticker ------------------------------------------------------------------------------ */

typedef struct column {
    const char *name;
    double (*value)(const snapshot *snapshot, int64_t row);
} column;

static forecast forecast_of(const snapshot *snapshot, int64_t row) {
    return snapshot_forecast(snapshot, snapshot->predictions[row],
                             dataset_volatility(&snapshot->dataset, row));
}

static double bound(const snapshot *snapshot, int64_t row, int level, int side) {
    const forecast forecast = forecast_of(snapshot, row);
    return forecast.has_intervals ? forecast.interval[level][side] : NAN;
}

static double adj_close(const snapshot *snapshot, int64_t row) {
    const dataset *dataset = &snapshot->dataset;
    return snapshot->market.tickers[dataset_ticker(dataset, row)]
        .adj_close[dataset_day(dataset, row)];
}
static double predicted(const snapshot *snapshot, int64_t row) {
    return snapshot->predictions[row];
}
static double low_80(const snapshot *snapshot, int64_t row) {
    return bound(snapshot, row, 0, 0);
}
static double high_80(const snapshot *snapshot, int64_t row) {
    return bound(snapshot, row, 0, 1);
}
static double low_95(const snapshot *snapshot, int64_t row) {
    return bound(snapshot, row, 1, 0);
}
static double high_95(const snapshot *snapshot, int64_t row) {
    return bound(snapshot, row, 1, 1);
}
static double actual(const snapshot *snapshot, int64_t row) {
    return dataset_return(&snapshot->dataset, row);
}

static const column columns[] = {
    {"adj_close", adj_close},  {"predicted_return", predicted},
    {"actual_return", actual}, {"low_80", low_80},
    {"high_80", high_80},      {"low_95", low_95},
    {"high_95", high_95},
};

/* 7 digits draw a chart; full precision is /predict's. */
static void write_column(text *out, const snapshot *snapshot, const column *column, int64_t first,
                         int64_t last) {
    text_printf(out, ", \"%s\": [", column->name);
    for (int64_t row = first; row <= last; row++) {
        const double value = column->value(snapshot, row);
        if (isfinite(value)) {
            text_printf(out, "%s%.7g", row > first ? "," : "", value);
        } else {
            text_printf(out, "%snull", row > first ? "," : "");
        }
    }
    text_append_string(out, "]");
}

static void write_dates(text *out, const snapshot *snapshot, int64_t first, int64_t last) {
    char date[DATE_SIZE];
    text_append_string(out, ", \"date\": [");
    for (int64_t row = first; row <= last; row++) {
        date_format(date, dataset_date(&snapshot->dataset, row));
        text_printf(out, "%s\"%s\"", row > first ? "," : "", date);
    }
    text_append_string(out, "]");
}

void handle_ticker(request *request) {
    const snapshot *snapshot = request->snapshot;
    int64_t last;
    error error;
    if (!snapshot_find(&last, snapshot, request->segment[1], false, 0, &error)) {
        response_send_error(request, 404, "%s", error.message);
        return;
    }
    if (last >= atomic_load_explicit(&snapshot->predicted, memory_order_acquire)) {
        response_send_error(request, 503, "predictions are still being computed; ask again");
        return;
    }
    const int32_t index = dataset_ticker(&snapshot->dataset, last);
    const int64_t first = snapshot->dataset.first_row[index] + snapshot->time_steps - 1;
    json head = {0};
    json_object(&head, NULL);
    json_string(&head, "ticker", snapshot->market.tickers[index].name);
    json_string(&head, "model_version", snapshot->model.version);
    char date[DATE_SIZE];
    date_format(date, snapshot->model.metadata.test_first_date);
    json_string(&head, "test_first_date", date);
    write_dates(&head.text, snapshot, first, last);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        write_column(&head.text, snapshot, &columns[i], first, last);
    }
    json_end(&head);
    response_send_json(request, 200, &head);
}
