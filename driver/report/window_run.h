/* The labelled windows of a data set in a range of days, as one run of consecutive rows a ticker:
 * what reads all of them needs no list, and sums over overlapping windows can be updated from row
 * to row.
 *
 *     for (window_run run = {0}; window_run_next(&run, dataset, range);) ...
 */
#ifndef REPORT_WINDOW_RUN_H
#define REPORT_WINDOW_RUN_H

#include "dataset/dataset_metadata.h"

typedef struct window_range {
    int32_t first_date, last_date; /* days on which the windows end, both included */
    int32_t label_before;          /* the labels' days are earlier than this */
} window_range;

/* Up to the last training day, with labels that are known when the first forecast of the test
 * period is made. */
window_range window_range_train(const dataset_metadata *metadata);
window_range window_range_test(const dataset_metadata *metadata);

typedef struct window_run {
    int32_t ticker;
    int64_t first, last; /* rows that end windows, both included */
    int32_t next;        /* the ticker to go on with */
} window_run;

/* The next ticker that has windows in the range; false after the last one. */
bool window_run_next(window_run *run, const dataset *dataset, window_range range);

#endif
