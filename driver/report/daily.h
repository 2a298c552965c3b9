/* A forecast measured day by day. Everything the report says is a function of these columns, so a
 * bootstrap draw is nothing but another list of days. */
#ifndef REPORT_DAILY_H
#define REPORT_DAILY_H

#include "report/panel.h"
#include "report/statistics.h"

typedef struct daily {
    int64_t days;               /* D */
    bool constant_zero;         /* the forecast is 0 everywhere: it has no direction */
    double *rows;               /* [D] how many forecasts */
    double *squared_error;      /* [D] sums over the day's rows ... */
    double *absolute_error;     /* [D] */
    double *squared_return;     /* [D] */
    double *squared_about_mean; /* [D] (return - mean return of the training windows)^2 */
    double *gain_zero;          /* [D] squared_return - squared_error */
    double *gain_mean;          /* [D] squared_about_mean - squared_error */
    double *right;              /* [D] rows where (forecast > 0) == (return > 0) */
    double *up;                 /* [D] rows where return > 0 */
    double *ic;                 /* [D] Pearson; NaN where either side is constant */
    double *rank_ic;            /* [D] Spearman */
    double *gross;              /* [D] long-short return; NaN on days without a tradeable return */
    double *net;                /* [D] after costs */
    double *turnover;           /* [D] */
    double *equal_weight;       /* [D] mean tradeable return of all rows */
    double *columns;            /* the memory of all of the above */
} daily;

/* Fills forecast [count] with what is said about the panel's rows first .. first + count - 1. A
 * forecast is asked for day by day, so that none is held for all rows at once. */
typedef void (*forecast_rows)(double *forecast, const void *context, int64_t first, int64_t count);

bool daily_measure(daily *out, const panel *panel, forecast_rows forecast, const void *context,
                   double train_mean, error *error);
void daily_free(daily *daily);

/* The statistics over the days day_index [count] (NULL: all, in order). Statistics that depend on
 * the order of the days are NaN unless day_index is NULL. */
void daily_summarise(statistics *out, const daily *daily, const int32_t *day_index, int64_t count);

#endif
