/* Ridge regression of the next-day return on the scaled features of the last `lags` rows of a
 * window: min ||y - b - X w||^2 + penalty ||w||^2, the intercept b not penalised (what
 * scikit-learn's Ridge(alpha) computes), by the normal equations and Cholesky. */
#ifndef REPORT_RIDGE_H
#define REPORT_RIDGE_H

#include "report/window_run.h"

enum { RIDGE_LAGS = 64 }; /* at most */
#define RIDGE_PENALTY 1.0 /* scikit-learn's default */

typedef struct ridge {
    int32_t lags; /* 1: the last row; T: the window */
    double intercept;
    double weight[RIDGE_LAGS * DATASET_FEATURES]; /* [lag][feature], lag 0 the last row */
} ridge;

/* Fits on the windows in `train`. */
bool ridge_fit(ridge *out, const dataset *dataset, int32_t lags, window_range train, error *error);

/* Forecast of the window that ends at `row`. */
double ridge_forecast(const ridge *ridge, const dataset *dataset, int64_t row);

#endif
