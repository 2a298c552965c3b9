/* The four features of day t, from prices p (adjusted close) and volumes v up to the close of t.
 * All sums are in double; means and deviations take two passes over their window. */
#ifndef FEATURES_FEATURES_H
#define FEATURES_FEATURES_H

#include <stdint.h>

enum {
    FEATURE_RET5,   /* p[t]/p[t-5] - 1 */
    FEATURE_VOL20,  /* sample standard deviation of the 20 daily returns that end at t */
    FEATURE_RSI14,  /* Wilder's relative strength index of 14 days, 0..100; 50 without moves */
    FEATURE_VOLZ20, /* (v[t] - mean)/sd over the 20 days that end at t; 0 when sd is 0 */
    FEATURE_COUNT,
    FEATURE_WARM_UP = 20 /* t of the first row: vol20 needs 20 returns */
};

extern const char *const feature_name[FEATURE_COUNT];

/* raw [days - 20][4] = the features of days 20, 21, ...; adj_close and volume [days]. */
void features_compute(const double *adj_close, const double *volume, int32_t days, double *raw);

/* The same, from volumes that are whole numbers. */
void features_compute_whole(const double *adj_close, const uint32_t *volume, int32_t days,
                            double *raw);

/* vol20 of day t >= 20 alone, equal to the bit. */
double features_volatility(const double *adj_close, int32_t t);

#endif
