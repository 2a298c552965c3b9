#include "report/audit.h"

#include <math.h>
#include <string.h>

/* Sums in another order, on another machine, differ by less. */
#define TOLERANCE 1e-9

static bool close_to(double a, double b, double scale) {
    return fabs(a - b) <= TOLERANCE * fabs(scale);
}

static bool same_scaler(const scaler *a, const scaler *b) {
    bool same = a->clip == b->clip;
    for (int f = 0; f < DATASET_FEATURES; f++) {
        same = same && close_to(a->sd[f], b->sd[f], b->sd[f]) &&
               close_to(a->mean[f], b->mean[f], b->sd[f]);
    }
    return same;
}

audit audit_checkpoint(const dataset_metadata *metadata, const dataset *refitted) {
    audit audit = {.checked = strcmp(metadata->sha256, refitted->market->sha256) == 0};
    if (audit.checked) {
        audit.scaler_differs = !same_scaler(&metadata->scaler, &refitted->scaler);
        audit.split_differs = metadata->train_last_date != refitted->train_last_date ||
                              metadata->test_first_date != refitted->test_first_date;
    }
    return audit;
}
