/* The labelled windows of a data set between two dates, as one run of consecutive rows a ticker:
 * what reads all of them needs no list, and sums over overlapping windows can be updated from row
 * to row.
 *
 *     for (window_run run = {0}; window_run_next(&run, dataset, first, last);) ...
 */
#ifndef REPORT_WINDOW_RUN_H
#define REPORT_WINDOW_RUN_H

#include "dataset/dataset.h"

typedef struct window_run {
    int32_t ticker;
    int64_t first, last; /* rows that end windows, both included */
    int32_t next;        /* the ticker to go on with */
} window_run;

/* The next ticker's windows that end on first_date..last_date; false after the last ticker. */
bool window_run_next(window_run *run, const dataset *dataset, int32_t first_date,
                     int32_t last_date);

#endif
