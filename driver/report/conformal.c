#include "report/conformal.h"

#include <math.h>
#include <stdlib.h>

const double conformal_level[CONFORMAL_LEVELS] = {0.80, 0.95};

static double scale_of(double volatility) {
    return volatility > CONFORMAL_VOLATILITY_FLOOR ? volatility : CONFORMAL_VOLATILITY_FLOOR;
}

double conformal_half_width(const conformal *conformal, int level, double volatility) {
    return conformal->quantile[level] * scale_of(volatility);
}

static int compare(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

bool conformal_fit(conformal *out, const double *forecast, const double *actual,
                   const double *volatility, int64_t count, error *error) {
    if (count < 1) {
        return error_set(error, "no windows to calibrate the prediction intervals on");
    }
    double *score = malloc((size_t)count * sizeof *score);
    if (!score) {
        return error_set(error, "out of memory for %lld calibration scores", (long long)count);
    }
    for (int64_t i = 0; i < count; i++) {
        score[i] = fabs(actual[i] - forecast[i]) / scale_of(volatility[i]);
    }
    qsort(score, (size_t)count, sizeof *score, compare);
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        int64_t rank = (int64_t)ceil((double)(count + 1) * conformal_level[level]);
        out->quantile[level] = score[(rank < count ? rank : count) - 1];
    }
    free(score);
    return true;
}
