#include "report/conformal.h"

#include <stdlib.h>

#include "report/forecast.h"

/* The dates of windows[first .. first+count-1]. */
static void date_range(const dataset *dataset, int64_t first, int64_t count, window_range *range) {
    range->first_date = INT32_MAX;
    range->last_date = INT32_MIN;
    for (int64_t i = first; i < first + count; i++) {
        int32_t date = dataset_date(dataset, dataset->windows[i]);
        range->first_date = date < range->first_date ? date : range->first_date;
        range->last_date = date > range->last_date ? date : range->last_date;
    }
}

/* Moves range->first_date to the latest date that leaves at least a tenth of the training windows.
 */
static bool keep_last_tenth(const dataset *dataset, window_range *range, error *error) {
    int64_t *windows_on =
        calloc((size_t)(range->last_date - range->first_date) + 1, sizeof *windows_on);
    if (!windows_on) {
        return error_set(error, "out of memory for the days of the calibration block");
    }
    for (int64_t i = 0; i < dataset->train_windows; i++) {
        windows_on[dataset_date(dataset, dataset->windows[i]) - range->first_date]++;
    }
    int32_t start = range->last_date;
    int64_t kept = windows_on[start - range->first_date];
    while (kept * 10 < dataset->train_windows) {
        start--;
        kept += windows_on[start - range->first_date];
    }
    range->first_date = start;
    free(windows_on);
    return true;
}

/* Dates of the calibration block: see the head of conformal.h. */
static bool find_block(const dataset *dataset, window_range *range, error *error) {
    if (dataset->validation_windows > 0) {
        date_range(dataset, dataset->train_windows, dataset->validation_windows, range);
        return true;
    }
    if (dataset->train_windows == 0) {
        return error_set(error, "no training windows to calibrate the prediction intervals on");
    }
    date_range(dataset, 0, dataset->train_windows, range);
    return keep_last_tenth(dataset, range, error);
}

bool conformal_calibrate(conformal *out, const dataset *dataset, rp_predictor *predictor,
                         error *error) {
    int32_t test = dataset->test_first_date; /* INT32_MAX without test windows */
    window_range range = {.label_before = test < INT32_MAX ? test + 1 : test};
    if (!find_block(dataset, &range, error)) {
        return false;
    }
    panel block;
    if (!panel_select(&block, dataset, range, error)) {
        return false;
    }
    double *forecast = malloc(2 * (size_t)(block.rows + 1) * sizeof *forecast);
    double *volatility = forecast ? forecast + block.rows : NULL;
    bool ok = forecast || error_set(error, "out of memory for the calibration forecasts");
    for (int64_t i = 0; ok && i < block.rows; i++) {
        volatility[i] = dataset_volatility(dataset, block.window_end[i]);
    }
    ok = ok && forecast_run(forecast, predictor, dataset, &block, error) &&
         conformal_fit(out, forecast, block.actual, volatility, block.rows, error);
    if (ok) {
        out->held_out = dataset->validation_windows > 0;
    }
    free(forecast);
    panel_free(&block);
    return ok;
}
