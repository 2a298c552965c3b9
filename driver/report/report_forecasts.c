/* The forecasts themselves, so that anybody can compute the report again by other means. */
#include <math.h>

#include "base/date.h"
#include "report/report.h"

static void append_number(text *out, double value) {
    text_append_string(out, ",");
    if (!isnan(value)) {
        text_append_double(out, value);
    }
}

/* baseline_forecast: of this row. */
static void append_row(text *out, const report *r, int64_t row, const char *date,
                       const double baseline_forecast[BASELINE_COUNT]) {
    const panel *panel = &r->panel;
    text_printf(out, "%s,%s", date, r->dataset->market->tickers[panel->ticker[row]].name);
    append_number(out, panel->actual[row]);
    append_number(out, panel->tradeable[row]);
    append_number(out, dataset_volatility(r->dataset, panel->window_end[row]));
    for (int32_t i = 0; i < r->model_count; i++) {
        append_number(out, r->models[i].forecast[row]);
    }
    for (int b = 0; b < BASELINE_COUNT; b++) {
        append_number(out, baseline_forecast[b]);
    }
    text_append_string(out, "\n");
}

bool report_forecasts(text *out, const report *r, error *error) {
    text_append_string(out, "date,ticker,actual,tradeable,vol20");
    for (int32_t i = 0; i < r->model_count; i++) {
        text_printf(out, ",model_%d", i + 1);
    }
    for (int b = 0; b < BASELINE_COUNT; b++) {
        text_printf(out, ",%s", baseline_key[b]);
    }
    text_append_string(out, "\n");
    for (int64_t day = 0; day < r->panel.days; day++) {
        char date[DATE_SIZE];
        date_format(date, r->panel.day_date[day]);
        for (int64_t row = r->panel.day_first[day]; row < r->panel.day_first[day + 1]; row++) {
            double forecast[BASELINE_COUNT];
            for (int b = 0; b < BASELINE_COUNT; b++) {
                report_baseline(&forecast[b], r, (baseline)b, row, 1);
            }
            append_row(out, r, row, date, forecast);
        }
    }
    return text_ok(out) || error_set(error, "out of memory for the table of forecasts");
}
