/* From prices to what a model trains on: labelled feature rows, windows, the chronological split
 * and the scaler. Definitions are in each function's comment; every number is a function of the
 * prices up to the close of its own day, except the target, which is the next day's. */
#ifndef DATASET_DATASET_H
#define DATASET_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "market/market.h"

enum {
    DATASET_FEATURES = 4,    /* ret5, vol20, rsi14, volz20 */
    DATASET_TIME_STEPS = 20, /* T */
    DATASET_WARM_UP = 20     /* days before a ticker's first feature row */
};

/* Mean and sample standard deviation of each feature over the training rows; scaled values are
 * clipped to +-clip. A feature that is constant in training has sd 1. */
typedef struct scaler {
    double mean[DATASET_FEATURES];
    double sd[DATASET_FEATURES];
    double clip; /* 5 */
} scaler;

typedef struct dataset_options {
    int32_t time_steps;         /* T, 20 */
    double train_fraction;      /* of the windows, by date; 0.8 */
    double validation_fraction; /* of the training windows, the latest by date; 0 */
    int32_t embargo_days;       /* trading days left out before each cut; 0 */
} dataset_options;

/* Rows of all tickers, a ticker's rows together and in date order. The last row of a ticker has
 * features and no label: its targets are NaN. */
typedef struct dataset {
    const market *market;  /* borrowed */
    dataset_options options;
    int64_t rows;          /* N */
    double *raw;           /* [N][F] */
    float *features;       /* [N][F], scaled */
    float *targets;        /* [N] p[t+1]/p[t] - 1; NaN without a label */
    double *returns;       /* [N] the same in double */
    double *tradeable;     /* [N] p[t+2]/p[t+1] - 1; NaN where t+2 does not exist */
    int32_t *row_ticker;   /* [N] index into market->tickers */
    int32_t *row_day;      /* [N] index into the ticker's own days */
    int32_t *row_date;     /* [N] days since 1970-01-01 */
    int64_t labelled_rows;
    int32_t *windows;      /* [W] last row of each labelled window: train, validation, test;
                              within each, by ticker, then date */
    int64_t train_windows, validation_windows, test_windows;
    int64_t purged_windows; /* left out at the cuts */
    int32_t train_last_date, test_first_date; /* of window ends */
    struct scaler scaler;
} dataset;

void dataset_options_init(dataset_options *options);

/* Builds everything above. On failure returns false with the reason in `error` (see base/error.h)
 * and leaves nothing to free. `fixed_scaler` NULL: fitted on the training rows; otherwise used as
 * it is (a checkpoint's). The market must outlive the data set. */
bool dataset_build(dataset *out, const market *market, const dataset_options *options,
                   const scaler *fixed_scaler, struct error *error);
void dataset_free(dataset *dataset);

/* Row index of (ticker, date), or -1. */
int64_t dataset_find_row(const dataset *dataset, int32_t ticker, int32_t date);

#endif
