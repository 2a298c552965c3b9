/* inspect: what the model sees of one ticker on one day, raw and scaled, and what it is to say. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/date.h"
#include "base/file.h"
#include "base/json.h"
#include "base/options.h"
#include "command.h"
#include "dataset/dataset.h"

typedef struct window {
    const ticker *ticker;
    int32_t day;       /* of the window's end, index into the ticker's days */
    const double *raw; /* [T][F] */
} window;

static bool has_label(const window *window) {
    return window->day + 1 < window->ticker->days;
}

static void print_json(const dataset *dataset, const window *window, json *json) {
    char date[DATE_SIZE];
    const int32_t *dates = window->ticker->dates;
    int32_t steps = dataset->options.time_steps, first = window->day - steps + 1;
    json_object(json, NULL);
    json_string(json, "ticker", window->ticker->name);
    date_format(date, dates[window->day]);
    json_string(json, "date", date);
    json_array(json, "dates");
    for (int32_t step = 0; step < steps; ++step) {
        date_format(date, dates[first + step]);
        json_string(json, NULL, date);
    }
    json_end(json);
    for (int scaled = 0; scaled <= 1; ++scaled) {
        json_array(json, scaled ? "scaled" : "raw");
        for (int32_t step = 0; step < steps; ++step) {
            json_array(json, NULL);
            for (int f = 0; f < DATASET_FEATURES; ++f) {
                double raw = window->raw[step * DATASET_FEATURES + f];
                json_double(json, NULL, scaled ? scaler_apply(&dataset->scaler, f, raw) : raw);
            }
            json_end(json);
        }
        json_end(json);
    }
    const double *p = window->ticker->adj_close + window->day;
    if (has_label(window)) {
        date_format(date, dates[window->day + 1]);
        json_double(json, "label", p[1] / p[0] - 1);
        json_string(json, "label_date", date);
    } else {
        json_null(json, "label");
        json_null(json, "label_date");
    }
    json_end(json);
}

static void print_table(const dataset *dataset, const window *window, text *out) {
    char date[DATE_SIZE];
    int32_t steps = dataset->options.time_steps, first = window->day - steps + 1;
    text_printf(out, "%-12s", window->ticker->name);
    for (int f = 0; f < DATASET_FEATURES; ++f)
        text_printf(out, "%12s", feature_name[f]);
    text_printf(out, "  |");
    for (int f = 0; f < DATASET_FEATURES; ++f)
        text_printf(out, "%9s", feature_name[f]);
    text_printf(out, " scaled\n");
    for (int32_t step = 0; step < steps; ++step) {
        const double *raw = window->raw + step * DATASET_FEATURES;
        date_format(date, window->ticker->dates[first + step]);
        text_printf(out, "%-12s", date);
        for (int f = 0; f < DATASET_FEATURES; ++f)
            text_printf(out, "%12.6f", raw[f]);
        text_printf(out, "  |");
        for (int f = 0; f < DATASET_FEATURES; ++f)
            text_printf(out, "%9.4f", scaler_apply(&dataset->scaler, f, raw[f]));
        text_printf(out, "\n");
    }
    const double *p = window->ticker->adj_close + window->day;
    if (has_label(window)) {
        date_format(date, window->ticker->dates[window->day + 1]);
        text_printf(out, "label: %+.6f, the return on %s\n", p[1] / p[0] - 1, date);
    } else {
        text_printf(out, "label: none, this is the ticker's last day\n");
    }
    text_printf(out, "scaler:");
    for (int f = 0; f < DATASET_FEATURES; ++f)
        text_printf(out, " %s %.6g +- %.6g", feature_name[f], dataset->scaler.mean[f],
                    dataset->scaler.sd[f]);
    text_printf(out, ", clipped to +-%g (training rows only)\n", dataset->scaler.clip);
}

static bool find_window(window *out, const dataset *dataset, const char *name, const char *date,
                        error *error) {
    int32_t days = 0, index = market_find(dataset->market, name);
    if (index < 0)
        return error_set(error, "--ticker: '%s' is not among the %" PRId32 " tickers", name,
                         dataset->market->count);
    if (!date_parse(date, &days))
        return error_set(error, "--date: '%s' is not a date as YYYY-MM-DD", date);
    const ticker *ticker = &dataset->market->tickers[index];
    int32_t least = DATASET_WARM_UP + dataset->options.time_steps - 1;
    if (ticker->days <= least)
        return error_set(error, "--ticker: %s has %" PRId32 " days and no window", name,
                         ticker->days);
    int64_t row = dataset_find_row(dataset, index, days);
    if (row < 0 || dataset_day(dataset, row) < least) {
        char first[DATE_SIZE], last[DATE_SIZE];
        date_format(first, ticker->dates[least]);
        date_format(last, ticker->dates[ticker->days - 1]);
        return error_set(error,
                         "--date: no window of %s ends on %s; windows end on its trading days from "
                         "%s to %s",
                         name, date, first, last);
    }
    *out = (window){.ticker = ticker, .day = dataset_day(dataset, row)};
    return true;
}

static bool inspect(const dataset *dataset, const char *name, const char *date, bool as_json,
                    error *error) {
    window window = {.ticker = NULL};
    if (!find_window(&window, dataset, name, date, error))
        return false;
    double *raw = malloc((size_t)window.ticker->days * DATASET_FEATURES * sizeof *raw);
    if (!raw)
        return error_set(error, "no memory for the features of %s", name);
    int32_t index = (int32_t)(window.ticker - dataset->market->tickers);
    dataset_raw(dataset, index, raw);
    int32_t first = window.day - dataset->options.time_steps + 1 - DATASET_WARM_UP;
    window.raw = raw + (int64_t)first * DATASET_FEATURES;
    bool ok;
    if (as_json) {
        json json = {.lines = 2};
        print_json(dataset, &window, &json);
        ok = json_write(&json, NULL, error);
        json_free(&json);
    } else {
        text text = {.length = 0};
        print_table(dataset, &window, &text);
        ok = file_print_text(&text, error);
        text_free(&text);
    }
    free(raw);
    return ok;
}

int cmd_inspect(int argc, char **argv) {
    const char *prices = NULL, *name = NULL, *date = NULL;
    bool as_json = false;
    market_options market_options = {.explain = false};
    option options[] = {
        MARKET_OPTIONS(prices, market_options),
        {"ticker", OPTION_STRING, &name, "T", "whose window", .required = true},
        {"date", OPTION_STRING, &date, "YYYY-MM-DD", "the window's last day", .required = true},
        {"json", OPTION_FLAG, &as_json, NULL, "one JSON object on standard output"},
    };
    int status;
    if (!OPTIONS_PARSE("inspect", "Shows one window's raw and scaled features and its label.",
                       options, argc, argv, &status))
        return status;
    market market = {.count = 0};
    dataset dataset = {.rows = 0};
    dataset_options dataset_options;
    dataset_options_init(&dataset_options);
    error error = {""};
    bool ok = market_read(&market, prices, &market_options, &error) &&
              dataset_build(&dataset, &market, &dataset_options, NULL, &error);
    if (ok) {
        dataset_print_counts(&dataset, stderr);
        ok = inspect(&dataset, name, date, as_json, &error);
    }
    if (!ok)
        fprintf(stderr, "return-predictor inspect: %s\n", error.message);
    dataset_free(&dataset);
    market_free(&market);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
