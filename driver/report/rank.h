/* Ranks within one day. */
#ifndef REPORT_RANK_H
#define REPORT_RANK_H

#include <stdint.h>

typedef struct ranked {
    double value;
    int32_t index; /* position before sorting */
} ranked;

/* order [count]: the values with their positions, smallest first; equal values by position. No
 * value may be NaN. scratch [count] is overwritten. */
void rank_sort(ranked *order, ranked *scratch, const double *values, int64_t count);

/* ranks [count] of a sorted order, from 1; equal values share the mean of their ranks. */
void rank_assign(float *ranks, const ranked *order, int64_t count);

/* Spearman's correlation from two such ranks [count]; NaN where one side is constant. */
double rank_correlation(const float *x, const float *y, int64_t count);

#endif
