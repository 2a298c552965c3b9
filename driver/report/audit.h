/* Leaks that no statistic shows: whether the checkpoint's scaler and split are those that its own
 * training period gives. */
#ifndef REPORT_AUDIT_H
#define REPORT_AUDIT_H

#include "dataset/dataset_metadata.h"

typedef struct audit {
    bool checked; /* the price files are those of training; otherwise nothing can be said */
    bool scaler_differs, split_differs;
} audit;

/* `refitted`: a data set of the checkpoint's options with a scaler of its own. */
audit audit_checkpoint(const dataset_metadata *metadata, const dataset *refitted);

#endif
