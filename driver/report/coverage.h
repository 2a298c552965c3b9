/* How often what happened lay inside the prediction intervals. */
#ifndef REPORT_COVERAGE_H
#define REPORT_COVERAGE_H

#include "report/conformal.h"
#include "report/panel.h"

typedef struct coverage {
    double share[CONFORMAL_LEVELS];      /* of the rows inside */
    double error[CONFORMAL_LEVELS];      /* its standard error, clustered by day */
    double mean_width[CONFORMAL_LEVELS]; /* high - low, as a return */
    double *daily[CONFORMAL_LEVELS];     /* [D] share of each day's rows inside, owned */
} coverage;

/* forecast [N] in the panel's order. */
bool coverage_measure(coverage *out, const conformal *intervals, const dataset *dataset,
                      const panel *panel, const double *forecast, error *error);
void coverage_free(coverage *coverage);

#endif
