/* The labelled windows of a data set between two dates, as runs of consecutive rows: what reads
 * all of them needs no list, and sums over overlapping windows can be updated from row to row.
 *
 *     for (window_run run = {0}; window_run_next(&run, dataset, first, last);) ...
 */
#ifndef REPORT_WINDOW_RUN_H
#define REPORT_WINDOW_RUN_H

#include "dataset/dataset.h"

typedef struct window_run {
    int64_t first, last; /* rows that end windows, both included, all of one ticker */
    int64_t next;        /* where the search goes on */
} window_run;

/* The next run of windows that end on first_date..last_date; false after the last one. */
bool window_run_next(window_run *run, const dataset *dataset, int32_t first_date,
                     int32_t last_date);

/* vol20 of the day on which the window ends, unscaled. */
double window_volatility(const dataset *dataset, int64_t row);

#endif
