/* The series that the figures draw, computed once. */
#ifndef REPORT_FIGURE_DATA_H
#define REPORT_FIGURE_DATA_H

#include "report/report.h"

enum {
    DENSITY_COLUMNS = 48,
    DENSITY_ROWS = 32,
    GROUPS = 10,
    RUNNING_DAYS = 60,
    HISTOGRAM_BINS = 50,
    HISTOGRAM_LIMIT = 5, /* scaled features are clipped there */
    LOSS_EPOCHS = 1000,
    LOSS_CURVES = 2 * REPORT_MODELS
};

typedef struct density {
    double x_low, x_high, y_low, y_high;
    int64_t count[DENSITY_COLUMNS * DENSITY_ROWS]; /* row by row from the bottom */
    int64_t most;
} density;

/* Test windows by size of the forecast, each group a tenth of them. */
typedef struct groups {
    double forecast[GROUPS], actual[GROUPS]; /* means; NaN for an empty group */
    double error[GROUPS];                    /* of the mean actual return, clustered by day */
} groups;

typedef struct loss_curve {
    bool validation;
    int64_t count;
    double value[LOSS_EPOCHS]; /* against the first epoch's: -0.02 is 2% below it. Training and
                                  validation are of other years, whose returns differ in size. */
} loss_curve;

typedef struct figure_data {
    int64_t days;
    double *date;                               /* [D] */
    double *running_ic;                         /* [D] mean of the last 60 known values */
    double *running_coverage[CONFORMAL_LEVELS]; /* [D] */
    double *equity[3];   /* [D] equal weight, gross, net; NaN after the last tradeable day */
    double *drawdown[3]; /* [D] the same curves below their peaks, <= 0 */
    double *columns;     /* the memory of all of the above */
    struct density density;
    struct groups groups;
    double histogram[2][DATASET_FEATURES][HISTOGRAM_BINS]; /* shares; training, test */
    double epoch[LOSS_EPOCHS];                             /* 1, 2, 3, ... */
    loss_curve *losses;                                    /* [loss_curves] */
    int loss_curves;
} figure_data;

bool figure_data_gather(figure_data *out, const report *report, error *error);
void figure_data_free(figure_data *data);

#endif
