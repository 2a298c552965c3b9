/* Runs the report over rows made elsewhere, so that a test can compare it with other programs'
 * arithmetic and give it data sets that no market would: report_probe ROWS.csv TIME_STEPS
 * TRAIN_LAST_DATE TEST_FIRST_DATE QUANTILE_80 QUANTILE_95 OUT (writes OUT.txt, .json, .html, .csv).
 *
 * ROWS.csv, one line a day, by ticker and date, without a header:
 * ticker,date,adj_close,x0,x1,x2,x3,forecast[,forecast]... (dates as day numbers). The x are taken
 * as the scaled features. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/options.h"
#include "report/report.h"

enum { COLUMNS = 32, BEFORE_FORECASTS = 7, X = 3 };

typedef struct rows {
    dataset dataset;
    market market;
    double *values; /* [days of all tickers][COLUMNS] */
    int columns;
    int64_t lines;
    int64_t *line_of_row;    /* [rows of the data set] */
    int32_t *dates;          /* [lines] */
    double *prices, *volume; /* [lines] */
} rows;

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count + 1, size);
    if (!memory) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

static void read_rows(rows *out, const char *path) {
    char *data;
    size_t size;
    error error;
    if (!file_read(path, &data, &size, &error)) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    int64_t lines = 0;
    for (size_t i = 0; i < size; i++) {
        lines += data[i] == '\n';
    }
    out->values = allocate((size_t)lines * COLUMNS, sizeof(double));
    char *at = data;
    for (int64_t line = 0; line < lines; line++) {
        for (int column = 0; *at != '\n'; column++) {
            out->values[line * COLUMNS + column] = strtod(at, &at);
            at += *at == ',';
            out->columns = column + 1;
        }
        at++;
    }
    out->lines = lines;
    free(data);
}

static void make_market(rows *r) {
    size_t n = (size_t)r->lines;
    r->dates = allocate(n, sizeof *r->dates);
    r->prices = allocate(n, sizeof *r->prices);
    r->volume = allocate(n, sizeof *r->volume);
    r->market.tickers = allocate(n, sizeof *r->market.tickers);
    for (int64_t i = 0; i < r->lines; i++) {
        const double *v = r->values + i * COLUMNS;
        r->dates[i] = (int32_t)v[1];
        r->prices[i] = v[2];
        ticker *ticker = &r->market.tickers[(int32_t)v[0]];
        if (ticker->days++ == 0) {
            snprintf(ticker->name, sizeof ticker->name, "T%d", (int)v[0]);
            ticker->dates = r->dates + i;
            ticker->adj_close = r->prices + i;
            ticker->volume = r->volume + i;
            r->market.count++;
        }
    }
}

static void make_dataset(rows *r, int32_t time_steps) {
    dataset *d = &r->dataset;
    d->market = &r->market;
    d->options.time_steps = time_steps;
    d->first_row = allocate((size_t)r->market.count, sizeof *d->first_row);
    d->features = allocate((size_t)r->lines * DATASET_FEATURES, sizeof *d->features);
    r->line_of_row = allocate((size_t)r->lines, sizeof *r->line_of_row);
    int64_t line = 0;
    for (int32_t t = 0; t < r->market.count; t++) {
        d->first_row[t] = d->rows;
        for (int32_t day = 0; day < r->market.tickers[t].days; day++, line++) {
            if (day >= DATASET_WARM_UP) {
                for (int f = 0; f < DATASET_FEATURES; f++) {
                    d->features[d->rows * DATASET_FEATURES + f] =
                        (float)r->values[line * COLUMNS + X + f];
                }
                r->line_of_row[d->rows++] = line;
            }
        }
    }
    d->first_row[r->market.count] = d->rows;
}

static void add_models(report *report, const rows *r) {
    for (int column = BEFORE_FORECASTS; column < r->columns; column++) {
        report_model model = {.checkpoint = "model.safetensors",
                              .seed = "1",
                              .losses = "[3.1e-4,2.9e-4,2.85e-4,2.8e-4]",
                              .validation_losses = "[3.0e-4,2.92e-4,2.9e-4,2.95e-4]",
                              .version = "0123456789ab"};
        model.forecast = allocate((size_t)report->panel.rows, sizeof(double));
        for (int64_t i = 0; i < report->panel.rows; i++) {
            model.forecast[i] =
                r->values[r->line_of_row[report->panel.window_end[i]] * COLUMNS + column];
        }
        report_add_model(report, &model);
    }
}

static bool write_all(const report *report, const char *out, error *error) {
    char path[4096];
    json json = {.lines = 2};
    json_object(&json, NULL);
    report_json(&json, report);
    json_end(&json);
    snprintf(path, sizeof path, "%s.json", out);
    bool ok = json_write(&json, path, error);
    text page = {0}, table = {0}, forecasts = {0};
    ok = ok && report_html(&page, report, "command, commit, date and machine", error);
    snprintf(path, sizeof path, "%s.html", out);
    ok = ok && file_write_text(path, &page, error);
    report_text(&table, report);
    snprintf(path, sizeof path, "%s.txt", out);
    ok = ok && file_write_text(path, &table, error);
    snprintf(path, sizeof path, "%s.csv", out);
    ok = ok && report_forecasts(&forecasts, report, error) &&
         file_write_text(path, &forecasts, error);
    json_free(&json);
    text_free(&page);
    text_free(&table);
    text_free(&forecasts);
    return ok;
}

static void free_rows(rows *r) {
    free(r->dataset.features);
    free(r->dataset.first_row);
    free(r->market.tickers);
    free(r->line_of_row);
    free(r->dates);
    free(r->prices);
    free(r->volume);
    free(r->values);
}

int main(int argc, char **argv) {
    int64_t number[3];
    dataset_metadata metadata = {.calibrated = true, .intervals.held_out = true};
    if (argc != 8 || !parse_int64(argv[2], &number[0]) || !parse_int64(argv[3], &number[1]) ||
        !parse_int64(argv[4], &number[2]) ||
        !parse_double(argv[5], &metadata.intervals.quantile[0]) ||
        !parse_double(argv[6], &metadata.intervals.quantile[1])) {
        fprintf(stderr, "usage: see the head of report_probe.c\n");
        return 2;
    }
    metadata.train_last_date = (int32_t)number[1];
    metadata.test_first_date = (int32_t)number[2];
    rows rows = {0};
    read_rows(&rows, argv[1]);
    make_market(&rows);
    make_dataset(&rows, (int32_t)number[0]);
    report report = {0};
    error error = {""};
    bool ok = report_begin(&report, &rows.dataset, &metadata, &(audit){0}, &error);
    if (ok) {
        add_models(&report, &rows);
        ok = report_finish(&report, &error) && write_all(&report, argv[7], &error);
        report_free(&report);
    }
    free_rows(&rows);
    if (!ok) {
        fprintf(stderr, "%s\n", error.message);
    }
    return ok ? 0 : 1;
}
