#include "report/coverage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void measure_level(coverage *out, int level, const conformal *intervals,
                          const dataset *dataset, const panel *panel, const double *forecast) {
    double inside = 0, width = 0;
    for (int64_t day = 0; day < panel->days; day++) {
        int64_t first = panel->day_first[day], end = panel->day_first[day + 1];
        double today = 0;
        for (int64_t i = first; i < end; i++) {
            double volatility = dataset_volatility(dataset, panel->window_end[i]);
            double half = conformal_half_width(intervals, level, volatility);
            today += fabs(panel->actual[i] - forecast[i]) <= half;
            width += 2 * half;
        }
        out->daily[level][day] = today / (double)(end - first);
        inside += today;
    }
    double rows = (double)panel->rows, days = (double)panel->days, residuals = 0;
    out->share[level] = inside / rows;
    out->mean_width[level] = width / rows;
    for (int64_t day = 0; day < panel->days; day++) {
        double count = (double)(panel->day_first[day + 1] - panel->day_first[day]);
        double residual = count * (out->daily[level][day] - out->share[level]);
        residuals += residual * residual;
    }
    out->error[level] = days > 1 ? sqrt(residuals * days / (days - 1)) / rows : NAN;
}

bool coverage_measure(coverage *out, const conformal *intervals, const dataset *dataset,
                      const panel *panel, const double *forecast, error *error) {
    memset(out, 0, sizeof *out);
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        out->daily[level] = calloc((size_t)panel->days + 1, sizeof *out->daily[level]);
        if (!out->daily[level]) {
            coverage_free(out);
            return error_set(error, "out of memory for the coverage of the intervals");
        }
        measure_level(out, level, intervals, dataset, panel, forecast);
    }
    return true;
}

void coverage_free(coverage *coverage) {
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        free(coverage->daily[level]);
        coverage->daily[level] = NULL;
    }
}
