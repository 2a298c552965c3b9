/* The rows that a forecast is judged on: what happened, sorted by day, so that everything that is
 * measured per day reads one stretch of memory. Forecasts are plain arrays in the same order. */
#ifndef REPORT_PANEL_H
#define REPORT_PANEL_H

#include <stdint.h>

#include "report/window_run.h"

typedef struct panel {
    int64_t rows;        /* N */
    int64_t days;        /* D */
    int64_t *day_first;  /* [D+1] first row of each day */
    int32_t *day_date;   /* [D] days since 1970-01-01, increasing */
    int32_t *ticker;     /* [N] increasing within a day */
    int32_t *window_end; /* [N] row of the data set */
    double *actual;      /* [N] p[t+1]/p[t] - 1 */
    double *tradeable;   /* [N] p[t+2]/p[t+1] - 1; NaN where it is not known */
    float *actual_rank;  /* [N] rank of `actual` within its day, from 1; ties share their mean */
} panel;

/* The labelled windows of `dataset` in `range`. */
bool panel_select(panel *out, const dataset *dataset, window_range range, error *error);

/* Rows of the day that has most. */
int64_t panel_widest_day(const panel *panel);

void panel_free(panel *panel);

#endif
