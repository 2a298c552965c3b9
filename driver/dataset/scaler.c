#include "dataset/scaler.h"

#include <math.h>

static const double default_clip = 5;

feature_moments feature_moments_of(const double *raw, int64_t rows) {
    feature_moments out = {.rows = rows};
    for (int64_t row = 0; row < rows; ++row)
        for (int f = 0; f < FEATURE_COUNT; ++f)
            out.mean[f] += raw[row * FEATURE_COUNT + f];
    for (int f = 0; f < FEATURE_COUNT && rows > 0; ++f)
        out.mean[f] /= (double)rows;
    for (int64_t row = 0; row < rows; ++row)
        for (int f = 0; f < FEATURE_COUNT; ++f) {
            double deviation = raw[row * FEATURE_COUNT + f] - out.mean[f];
            out.m2[f] += deviation * deviation;
        }
    return out;
}

void feature_moments_merge(feature_moments *all, const feature_moments *part) {
    if (part->rows == 0)
        return;
    double before = (double)all->rows, added = (double)part->rows, total = before + added;
    for (int f = 0; f < FEATURE_COUNT; ++f) {
        double step = part->mean[f] - all->mean[f];
        all->mean[f] += step * (added / total);
        all->m2[f] += part->m2[f] + step * step * (before * added / total);
    }
    all->rows += part->rows;
}

scaler scaler_from(const feature_moments *training) {
    scaler out = {.clip = default_clip};
    for (int f = 0; f < FEATURE_COUNT; ++f) {
        double variance = training->rows > 1 ? training->m2[f] / (double)(training->rows - 1) : 0;
        out.mean[f] = training->mean[f];
        out.sd[f] = variance > 0 ? sqrt(variance) : 1;
    }
    return out;
}

double scaler_apply(const scaler *scaler, int feature, double raw) {
    double scaled = (raw - scaler->mean[feature]) / scaler->sd[feature];
    return fmin(fmax(scaled, -scaler->clip), scaler->clip);
}
