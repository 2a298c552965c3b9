/* predict: what a trained model says about the next day of one ticker or of all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/date.h"
#include "base/file.h"
#include "base/options.h"
#include "command.h"
#include "model/prediction.h"

typedef struct predict_options {
    const char *prices, *checkpoint, *ticker, *date;
    market_options market;
    int64_t threads;
    bool json;
} predict_options;

/* The asked-for windows: of one ticker, or of every ticker that has one on that day. */
static bool choose_rows(int32_t *rows, int64_t *count, const dataset *dataset,
                        const predict_options *options, error *error) {
    int32_t date = PREDICTION_LATEST;
    if (options->date && !date_parse(options->date, &date)) {
        return error_set(error, "--date: \"%s\" is not a day like 2021-12-31", options->date);
    }
    *count = 0;
    int64_t row;
    if (options->ticker) {
        if (!prediction_find_row(&row, dataset, options->ticker, date, error)) {
            return false;
        }
        rows[(*count)++] = (int32_t)row;
        return true;
    }
    struct error last = {""};
    for (int32_t i = 0; i < dataset->market->count; i++) {
        if (prediction_find_row(&row, dataset, dataset->market->tickers[i].name, date, &last)) {
            rows[(*count)++] = (int32_t)row;
        }
    }
    return *count > 0 ||
           error_set(error, "no ticker can be predicted; the last one: %s", last.message);
}

static void print_table(text *out, const prediction *predictions, int64_t count) {
    text_printf(out, "%-12s %-10s %10s   %-20s   %-20s %10s\n", "ticker", "date", "prediction",
                "80% interval", "95% interval", "actual");
    for (int64_t i = 0; i < count; i++) {
        const prediction *p = &predictions[i];
        char date[DATE_SIZE], interval[CONFORMAL_LEVELS][40], actual[16] = "-";
        date_format(date, p->date);
        for (int level = 0; level < CONFORMAL_LEVELS; level++) {
            snprintf(interval[level], sizeof interval[level], "[%+.3f%%, %+.3f%%]",
                     100 * p->interval[level][0], 100 * p->interval[level][1]);
        }
        if (!isnan(p->actual)) {
            snprintf(actual, sizeof actual, "%+.3f%%", 100 * p->actual);
        }
        text_printf(out, "%-12s %-10s %+9.4f%%   %-20s   %-20s %10s\n", p->ticker, date,
                    100 * p->value, interval[0], interval[1], actual);
    }
}

static bool print_predictions(const prediction *predictions, int64_t count, const char *version,
                              bool as_json, error *error) {
    if (as_json) {
        json json = {.lines = 1};
        json_array(&json, NULL);
        for (int64_t i = 0; i < count; i++) {
            prediction_write(&json, &predictions[i], version);
        }
        json_end(&json);
        bool ok = json_write(&json, NULL, error);
        json_free(&json);
        return ok;
    }
    text table = {0};
    print_table(&table, predictions, count);
    bool ok = file_print_text(&table, error);
    text_free(&table);
    return ok;
}

static bool predict(const predict_options *options, error *error) {
    model model = {0};
    market market = {0};
    dataset dataset = {0};
    int32_t *rows = NULL;
    prediction *predictions = NULL;
    int64_t count = 0;
    bool ok = false;
    if (!model_load(&model, options->checkpoint, (int32_t)options->threads, error) ||
        !market_read(&market, options->prices, &options->market, error) ||
        !model_dataset(&dataset, &model, &market, error)) {
        goto done;
    }
    rows = malloc((size_t)(market.count + 1) * sizeof *rows);
    predictions = malloc((size_t)(market.count + 1) * sizeof *predictions);
    if (!rows || !predictions) {
        error_set(error, "out of memory for %d predictions", market.count);
        goto done;
    }
    ok = choose_rows(rows, &count, &dataset, options, error) &&
         prediction_make(predictions, &model, &dataset, rows, count, error) &&
         print_predictions(predictions, count, model.version, options->json, error);
done:
    free(predictions);
    free(rows);
    dataset_free(&dataset);
    market_free(&market);
    model_free(&model);
    return ok;
}

int cmd_predict(int argc, char **argv) {
    predict_options o = {0};
    option options[] = {
        MARKET_OPTIONS(o.prices, o.market),
        {"checkpoint", OPTION_STRING, &o.checkpoint, "FILE", "the trained model", .required = true},
        {"ticker", OPTION_STRING, &o.ticker, "T", "one ticker (default: all)"},
        {"date", OPTION_STRING, &o.date, "D",
         "last day whose prices are used, 2021-12-31 (default: the latest of each ticker)"},
        {"json", OPTION_FLAG, &o.json, NULL, "JSON with full precision on standard output"},
        {"threads", OPTION_INT64, &o.threads, "N", "0: one a core", .least = 0, .most = 1024},
    };
    int status;
    if (!OPTIONS_PARSE("predict", "Predicts the return from a day's close to the next.", options,
                       argc, argv, &status)) {
        return status;
    }
    error error = {""};
    if (!predict(&o, &error)) {
        fprintf(stderr, "return-predictor predict: %s\n", error.message);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}
