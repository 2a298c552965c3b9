/* What a checkpoint remembers of the data it was trained on, so that evaluate, predict and serve
 * rebuild the same features and the same split from price files that may have grown since.
 *
 * Kept as the caller's own lines of the checkpoint's metadata: numbers with 17 digits, dates as
 * ISO 8601, lists as JSON arrays.
 *
 *     features                 ["ret5","vol20","rsi14","volz20"]
 *     scaler.mean, scaler.sd   [4 numbers]
 *     scaler.clip              number
 *     window.time_steps        whole number
 *     split.train_fraction, split.validation_fraction, split.embargo_days
 *     split.train_first_date   first day that may end a training window; only with a split by date
 *     split.train_last_date    last day on which a training window ends
 *     split.test_first_date    first day on which a test window ends
 *     data.sha256              of the price files
 *     interval.quantile_80, interval.quantile_95   of |error| / vol20; absent: not calibrated
 *     interval.calibration     "validation" or "training" (see report/conformal.h)
 */
#ifndef DATASET_DATASET_METADATA_H
#define DATASET_DATASET_METADATA_H

#include "dataset/dataset.h"
#include "rp/rp.h"

enum { CONFORMAL_LEVELS = 2 }; /* 80% and 95% */

/* Widths of the prediction intervals; fitted by report/conformal.h. */
typedef struct conformal {
    double quantile[CONFORMAL_LEVELS]; /* of |error| / vol20 on the calibration windows */
    bool held_out; /* calibrated on validation windows, which training did not see */
} conformal;

typedef struct dataset_metadata {
    struct scaler scaler;
    dataset_options options;
    int32_t train_last_date, test_first_date;
    char sha256[65];
    bool calibrated; /* `intervals` is known */
    conformal intervals;
} dataset_metadata;

/* Of a data set that a model has just been trained on; `intervals` NULL: none. */
void dataset_metadata_describe(dataset_metadata *out, const dataset *dataset,
                               const conformal *intervals);

enum { DATASET_METADATA_LINES = 16, DATASET_METADATA_VALUE = 160 };

/* Ready for rp_trainer_save and rp_checkpoint_save: pass `lines` and `count`. The lines point into
 * `values`, so it must not be copied. */
typedef struct dataset_metadata_lines {
    rp_metadata lines[DATASET_METADATA_LINES];
    char values[DATASET_METADATA_LINES][DATASET_METADATA_VALUE];
    int64_t count;
} dataset_metadata_lines;

void dataset_metadata_write(dataset_metadata_lines *out, const dataset_metadata *metadata);

/* A line that is missing or wrong is an error that names it. */
bool dataset_metadata_read(dataset_metadata *out, const rp_checkpoint *checkpoint, error *error);

/* The data set that the checkpoint's model understands: dataset_build with its scaler and options,
 * refused when the model's shape is not that of these features. */
bool dataset_metadata_rebuild(dataset *out, const dataset_metadata *metadata,
                              const rp_checkpoint *checkpoint, const market *market, error *error);

#endif
