/* Block-bootstrap intervals: days are resampled in circular blocks, so that what lasts for some
 * days (volatility, momentum) and what the stocks of one day share stays together. */
#ifndef REPORT_BOOTSTRAP_H
#define REPORT_BOOTSTRAP_H

#include "report/daily.h"

enum { BOOTSTRAP_BLOCK = 20, BOOTSTRAP_DRAWS = 2000 };

typedef struct interval {
    double low, high; /* 2.5% and 97.5%; NaN where there is none */
} interval;

typedef struct intervals {
    interval value[STATISTIC_COUNT];
} intervals;

/* Fewer than two blocks of days leave nothing to resample: all NaN.
 *
 * Each draw joins ceil(D/20) blocks of 20 days and cuts the result to D days. A block starts on a
 * day drawn by SplitMix64 from `seed`: floor(D * (next output / 2^64)). */
bool bootstrap_intervals(intervals *out, const daily *daily, uint64_t seed, error *error);

#endif
