/* From prices to what a model trains on: labelled feature rows, windows, the chronological split
 * and the scaler. Every number is a function of the prices up to the close of its own day, except
 * the target, which is the next day's.
 *
 * Rows are stored once, scaled, in single precision; what is a short function of the prices (dates,
 * returns, raw features) is computed when asked for, so that 25 million rows fit in 1 GB. */
#ifndef DATASET_DATASET_H
#define DATASET_DATASET_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "dataset/scaler.h"
#include "features/features.h"
#include "market/market.h"

enum {
    DATASET_FEATURES = FEATURE_COUNT, /* F */
    DATASET_TIME_STEPS = 20,          /* T */
    DATASET_WARM_UP = FEATURE_WARM_UP /* days before a ticker's first row */
};

typedef struct dataset_options {
    int32_t time_steps;         /* T, 1..64; 20 */
    double train_fraction;      /* of the windows, by date; 0.8 */
    double validation_fraction; /* of the training windows, the latest by date; 0 */
    int32_t embargo_days;       /* trading days left out before each cut; 0 */
    bool by_date;               /* cut at these two days instead of by train_fraction: */
    int32_t train_first_date;   /* first day that may end a training window */
    int32_t test_first_date;    /* first day of the test period */
} dataset_options;

/* Rows of all tickers, a ticker's rows together and in date order: one for each day from the
 * ticker's 21st on. A ticker's last row has features and no label. */
typedef struct dataset {
    const market *market; /* borrowed */
    dataset_options options;
    int64_t rows;       /* N */
    int64_t *first_row; /* [tickers + 1] */
    float *features;    /* [N][F], scaled */
    float *targets;     /* [N] p[t+1]/p[t] - 1; NaN without a label */
    int64_t labelled_rows;
    int32_t *windows; /* [W] last row of each labelled window: train, validation, test;
                         within each, by ticker, then date */
    int64_t train_windows, validation_windows, test_windows;
    int64_t purged_windows; /* left out at the cuts: labels in the next block, embargo */
    int32_t train_last_date, test_first_date; /* of window ends */
    struct scaler scaler;
} dataset;

void dataset_options_init(dataset_options *options);

/* Builds everything above. `fixed_scaler` NULL: fitted on the training rows; otherwise used as it
 * is (a checkpoint's). The market must outlive the data set. On failure nothing is to be freed. */
bool dataset_build(dataset *out, const market *market, const dataset_options *options,
                   const scaler *fixed_scaler, error *error);
void dataset_free(dataset *dataset);

/* "50 tickers, 2,495 labelled rows each, 124,750 labelled rows in all; 123,800 windows: 99,000
 * train, 24,800 test" */
void dataset_print_counts(const dataset *dataset, FILE *file);

/* Row index of (ticker, date), or -1. */
int64_t dataset_find_row(const dataset *dataset, int32_t ticker, int32_t date);

int32_t dataset_ticker(const dataset *dataset, int64_t row); /* index into market->tickers */
int32_t dataset_day(const dataset *dataset, int64_t row);    /* index into the ticker's days */
int32_t dataset_date(const dataset *dataset, int64_t row);   /* days since 1970-01-01 */

/* p[t+1]/p[t] - 1, the label; NaN on a ticker's last day. */
double dataset_return(const dataset *dataset, int64_t row);
/* p[t+2]/p[t+1] - 1, the return that a forecast made at the close of t can still earn; NaN where
 * day t+2 does not exist. */
double dataset_tradeable(const dataset *dataset, int64_t row);
/* vol20, unscaled. */
double dataset_volatility(const dataset *dataset, int64_t row);
/* raw [rows of the ticker][F] = its unscaled features; rows are first_row[ticker] and on. */
void dataset_raw(const dataset *dataset, int32_t ticker, double *raw);

#endif
