#include "report/forecast.h"

enum { CHUNK = 8192 }; /* windows a call: enough for every core, small beside the data */

bool forecast_run(double *forecast, rp_predictor *predictor, const dataset *dataset,
                  const panel *panel, error *error) {
    float returns[CHUNK];
    for (int64_t first = 0; first < panel->rows; first += CHUNK) {
        int64_t left = panel->rows - first, count = left < CHUNK ? left : CHUNK;
        if (rp_predictor_run(returns, predictor, dataset->features, dataset->rows,
                             panel->window_end + first, count) != RP_OK) {
            return error_set(error, "the forecast failed: %s", rp_last_error());
        }
        for (int64_t i = 0; i < count; i++) {
            forecast[first + i] = returns[i];
        }
    }
    return true;
}
