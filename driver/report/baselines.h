/* The forecasts that a model must beat before anyone calls it skilful. */
#ifndef REPORT_BASELINES_H
#define REPORT_BASELINES_H

#include "report/panel.h"
#include "report/ridge.h"

typedef enum baseline {
    BASELINE_ZERO,
    BASELINE_TRAIN_MEAN,
    BASELINE_TICKER_MEAN,
    BASELINE_LAST_RETURN,
    BASELINE_MINUS_LAST_RETURN,
    BASELINE_RIDGE_LAST_ROW,
    BASELINE_RIDGE_WINDOW,
    BASELINE_COUNT
} baseline;

extern const char *const baseline_key[BASELINE_COUNT];   /* in JSON */
extern const char *const baseline_label[BASELINE_COUNT]; /* for people */

typedef struct baselines {
    double train_mean;   /* over the training windows */
    double *ticker_mean; /* [tickers] the train mean for a ticker that training has not seen */
    ridge last_row, window;
} baselines;

/* Fits on the windows in `train`. */
bool baselines_fit(baselines *out, const dataset *dataset, window_range train, error *error);
void baselines_free(baselines *baselines);

/* forecast [count] of the panel's rows first .. first + count - 1. */
void baselines_forecast(double *forecast, const baselines *baselines, baseline which,
                        const dataset *dataset, const panel *panel, int64_t first, int64_t count);

#endif
