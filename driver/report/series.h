/* Arithmetic over one series of numbers. NaN marks a day without a value and is left out. */
#ifndef REPORT_SERIES_H
#define REPORT_SERIES_H

#include <stdint.h>

/* Welford's running mean and sum of squared deviations. */
typedef struct moments {
    int64_t count;
    double mean, squares;
} moments;

/* Ignores NaN. */
void moments_add(moments *m, double value);
double moments_mean(const moments *m);      /* NaN without values */
double moments_deviation(const moments *m); /* ddof 1; NaN with fewer than two values */
double moments_ratio(const moments *m);     /* mean / deviation; NaN when that is 0 or NaN */

double series_mean(const double *values, int64_t count);

/* The value that has `rank` others before it when sorted, 0 <= rank < count; reorders `values`, so
 * that those after it are not smaller. No value may be NaN. */
double series_select(double *values, int64_t count, int64_t rank);

/* Linear interpolation between order statistics (numpy's default); reorders `values`. */
double series_quantile(double *values, int64_t count, double probability);

/* t of the mean: mean / sqrt(S / n), S = c0 + 2 sum_l (1 - l/(lags+1)) c_l, with the
 * autocovariances c_l = sum_t e_t e_{t-l} / n (Newey and West 1987). */
double series_newey_west_t(const double *values, int64_t count, int lags);

/* Largest 1 - value/peak of the curve that starts at 1 and compounds `returns`. */
double series_drawdown(const double *returns, int64_t count);

#endif
