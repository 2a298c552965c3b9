/* Split-conformal prediction intervals: forecast +- quantile * vol20, where the quantile is that
 * of |error| / vol20 over a calibration block that lies before the test period.
 *
 * The calibration block is the validation windows. Without them it is the last tenth (by date) of
 * the training windows, which the model has seen: its errors there are slightly too small, so the
 * promise is approximate. The report therefore always shows the coverage measured on the test
 * period beside the promised one. */
#ifndef REPORT_CONFORMAL_H
#define REPORT_CONFORMAL_H

#include "dataset/dataset_metadata.h"

#define CONFORMAL_VOLATILITY_FLOOR 1e-4 /* a price that stood still for 20 days has vol20 = 0 */

extern const double conformal_level[CONFORMAL_LEVELS]; /* 0.80, 0.95 */

/* From arrays [count]: the ceil((count+1) level)-th smallest score. */
bool conformal_fit(conformal *out, const double *forecast, const double *actual,
                   const double *volatility, int64_t count, error *error);

/* Runs the predictor over the calibration block and fits. `dataset` as it was built for training,
 * `predictor` with the weights that will be saved. */
bool conformal_calibrate(conformal *out, const dataset *dataset, rp_predictor *predictor,
                         error *error);

/* Half width of the interval of one level. */
double conformal_half_width(const conformal *conformal, int level, double volatility);

#endif
