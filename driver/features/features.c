#include "features/features.h"

#include <math.h>

enum { RSI_DAYS = 14, WINDOW = FEATURE_WARM_UP };

const char *const feature_name[FEATURE_COUNT] = {"ret5", "vol20", "rsi14", "volz20"};

/* Days are computed LANES at a time: each keeps its own order of additions, and the processor
 * overlaps their chains. */
enum { LANES = 8 };

/* mean and M2 (sum of squared deviations) of x[l .. l+WINDOW-1] for each lane l, shifted by
 * shift[l], so that equal values have deviations of exactly 0. */
static void window_moments(const double *x, const double *shift, double *mean, double *m2) {
    double sum[LANES] = {0}, squares[LANES] = {0};
    for (int k = 0; k < WINDOW; ++k)
        for (int l = 0; l < LANES; ++l)
            sum[l] += x[k + l] - shift[l];
    for (int l = 0; l < LANES; ++l)
        mean[l] = sum[l] / WINDOW;
    for (int k = 0; k < WINDOW; ++k)
        for (int l = 0; l < LANES; ++l) {
            double deviation = x[k + l] - shift[l] - mean[l];
            squares[l] += deviation * deviation;
        }
    for (int l = 0; l < LANES; ++l)
        m2[l] = squares[l];
}

/* Volumes in either form; the other is NULL. */
typedef struct volumes {
    const double *any;
    const uint32_t *whole;
} volumes;

/* vol20 and volz20 of days t .. t+LANES-1, of which `lanes` exist; the others repeat the last. */
static void window_features(const double *p, volumes v, int32_t t, int32_t lanes,
                            double (*raw)[FEATURE_COUNT]) {
    double returns[WINDOW + LANES - 1], volume[WINDOW + LANES - 1], zero[LANES] = {0};
    double last[LANES], mean[LANES], m2[LANES];
    for (int32_t k = 0; k < WINDOW + LANES - 1; ++k) {
        int32_t day = t - WINDOW + 1 + (k < WINDOW + lanes - 1 ? k : WINDOW + lanes - 2);
        returns[k] = p[day] / p[day - 1] - 1;
        volume[k] = v.any ? v.any[day] : v.whole[day];
    }
    for (int l = 0; l < LANES; ++l)
        last[l] = volume[WINDOW - 1 + l];
    window_moments(returns, zero, mean, m2);
    for (int32_t l = 0; l < lanes; ++l)
        raw[l][FEATURE_VOL20] = sqrt(m2[l] / (WINDOW - 1));
    window_moments(volume, last, mean, m2);
    for (int32_t l = 0; l < lanes; ++l)
        raw[l][FEATURE_VOLZ20] = m2[l] > 0 ? -mean[l] / sqrt(m2[l] / (WINDOW - 1)) : 0;
}

/* Wilder's index: the averages begin as the plain means of the first 14 gains and losses, then
 * average = (13 * average + new) / 14. */
static void relative_strength(const double *p, int32_t days, double (*raw)[FEATURE_COUNT]) {
    double gain = 0, loss = 0;
    for (int32_t t = 1; t < days; ++t) {
        double move = p[t] - p[t - 1];
        double up = move > 0 ? move : 0, down = move < 0 ? -move : 0;
        if (t <= RSI_DAYS) {
            gain += up;
            loss += down;
            if (t == RSI_DAYS) {
                gain /= RSI_DAYS;
                loss /= RSI_DAYS;
            }
        } else {
            gain = ((RSI_DAYS - 1) * gain + up) / RSI_DAYS;
            loss = ((RSI_DAYS - 1) * loss + down) / RSI_DAYS;
        }
        if (t >= FEATURE_WARM_UP)
            raw[t - FEATURE_WARM_UP][FEATURE_RSI14] =
                gain + loss > 0 ? 100 * (gain / (gain + loss)) : 50;
    }
}

static void compute(const double *adj_close, volumes volume, int32_t days, double *raw) {
    double(*row)[FEATURE_COUNT] = (double(*)[FEATURE_COUNT])raw;
    for (int32_t t = FEATURE_WARM_UP; t < days; t += LANES) {
        int32_t lanes = days - t < LANES ? days - t : LANES;
        window_features(adj_close, volume, t, lanes, row + (t - FEATURE_WARM_UP));
    }
    for (int32_t t = FEATURE_WARM_UP; t < days; ++t)
        row[t - FEATURE_WARM_UP][FEATURE_RET5] = adj_close[t] / adj_close[t - 5] - 1;
    relative_strength(adj_close, days, row);
}

void features_compute(const double *adj_close, const double *volume, int32_t days, double *raw) {
    compute(adj_close, (volumes){.any = volume}, days, raw);
}

void features_compute_whole(const double *adj_close, const uint32_t *volume, int32_t days,
                            double *raw) {
    compute(adj_close, (volumes){.whole = volume}, days, raw);
}

double features_volatility(const double *adj_close, int32_t t) {
    double sum = 0, squares = 0, returns[WINDOW];
    for (int k = 0; k < WINDOW; ++k) {
        returns[k] = adj_close[t - WINDOW + 1 + k] / adj_close[t - WINDOW + k] - 1;
        sum += returns[k];
    }
    double mean = sum / WINDOW;
    for (int k = 0; k < WINDOW; ++k)
        squares += (returns[k] - mean) * (returns[k] - mean);
    return sqrt(squares / (WINDOW - 1));
}
