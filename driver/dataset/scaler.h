/* Standardisation of features, fitted on training rows only. */
#ifndef DATASET_SCALER_H
#define DATASET_SCALER_H

#include <stdint.h>

#include "features/features.h"

/* Mean and sample standard deviation of each feature over the training rows; scaled values are
 * clipped to +-clip. A feature that is constant in training has sd 1. */
typedef struct scaler {
    double mean[FEATURE_COUNT];
    double sd[FEATURE_COUNT];
    double clip; /* 5 */
} scaler;

/* Count, mean and sum of squared deviations of each feature, for a part of the rows. */
typedef struct feature_moments {
    int64_t rows;
    double mean[FEATURE_COUNT], m2[FEATURE_COUNT];
} feature_moments;

/* Of raw [rows][F], in two passes. */
feature_moments feature_moments_of(const double *raw, int64_t rows);
/* Adds the rows of `part` to `all` (Chan, Golub and LeVeque 1979). */
void feature_moments_merge(feature_moments *all, const feature_moments *part);

scaler scaler_from(const feature_moments *training);
double scaler_apply(const scaler *scaler, int feature, double raw);

#endif
