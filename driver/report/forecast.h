/* The model's forecasts for the rows of a panel. */
#ifndef REPORT_FORECAST_H
#define REPORT_FORECAST_H

#include "dataset/dataset.h"
#include "report/panel.h"
#include "rp/rp.h"

/* forecast [panel->rows]. */
bool forecast_run(double *forecast, rp_predictor *predictor, const dataset *dataset,
                  const panel *panel, error *error);

#endif
