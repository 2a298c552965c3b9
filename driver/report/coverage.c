#include "report/coverage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"

typedef struct measuring {
    coverage *out;
    double *width[CONFORMAL_LEVELS]; /* [D] sums over the day's rows */
    const conformal *intervals;
    const dataset *dataset;
    const panel *panel;
    const double *forecast;
} measuring;

static void measure_day(int64_t day, void *context) {
    const measuring *work = context;
    const panel *panel = work->panel;
    for (int64_t i = panel->day_first[day]; i < panel->day_first[day + 1]; i++) {
        double volatility = dataset_volatility(work->dataset, panel->window_end[i]);
        double error = fabs(panel->actual[i] - work->forecast[i]);
        for (int level = 0; level < CONFORMAL_LEVELS; level++) {
            double half = conformal_half_width(work->intervals, level, volatility);
            work->out->daily[level][day] += error <= half;
            work->width[level][day] += 2 * half;
        }
    }
}

/* From each day's rows inside to shares and their standard error. */
static void summarise(coverage *out, int level, const panel *panel, const double *width) {
    double rows = (double)panel->rows, days = (double)panel->days, residuals = 0;
    for (int64_t day = 0; day < panel->days; day++) {
        out->share[level] += out->daily[level][day] / rows;
        out->mean_width[level] += width[day] / rows;
    }
    for (int64_t day = 0; day < panel->days; day++) {
        double count = (double)(panel->day_first[day + 1] - panel->day_first[day]);
        double residual = out->daily[level][day] - count * out->share[level];
        residuals += residual * residual;
        out->daily[level][day] /= count;
    }
    out->error[level] = days > 1 ? sqrt(residuals * days / (days - 1)) / rows : NAN;
}

bool coverage_measure(coverage *out, const conformal *intervals, const dataset *dataset,
                      const panel *panel, const double *forecast, error *error) {
    memset(out, 0, sizeof *out);
    measuring work = {.out = out,
                      .intervals = intervals,
                      .dataset = dataset,
                      .panel = panel,
                      .forecast = forecast};
    double *width = calloc((size_t)panel->days * CONFORMAL_LEVELS + 1, sizeof *width);
    bool ok = width;
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        out->daily[level] = calloc((size_t)panel->days + 1, sizeof *out->daily[level]);
        work.width[level] = width + level * panel->days;
        ok = ok && out->daily[level];
    }
    if (ok) {
        parallel_for(panel->days, measure_day, &work);
        for (int level = 0; level < CONFORMAL_LEVELS; level++) {
            summarise(out, level, panel, work.width[level]);
        }
    } else {
        coverage_free(out);
        error_set(error, "out of memory for the coverage of the intervals");
    }
    free(width);
    return ok;
}

void coverage_free(coverage *coverage) {
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        free(coverage->daily[level]);
        coverage->daily[level] = NULL;
    }
}
