/* Everything that answers depend on, loaded together and never changed afterwards: one checkpoint,
 * the prices, their features and the prediction of every day. A reload makes a new snapshot; a
 * request keeps the one it began with. */
#ifndef SERVE_SNAPSHOT_H
#define SERVE_SNAPSHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "model/model.h"
#include "serve/evidence.h"

#define MODEL_NAME "FinancialLSTM"

typedef struct snapshot_sources {
    const char *checkpoint, *prices;
    const char *benchmark, *report; /* NULL: not shown */
} snapshot_sources;

typedef struct snapshot {
    atomic_int references;
    model model; /* its own predictor fills the table */
    rp_model_options shape;
    int64_t parameters;
    int32_t time_steps;        /* T */
    rp_predictor **predictors; /* [workers] */
    int32_t workers;
    market market;
    dataset dataset;
    evidence evidence;
    char loaded_at[24];     /* ISO 8601, UTC */
    float *predictions;     /* [rows]; NaN where no window ends */
    atomic_llong predicted; /* predictions[0 .. predicted-1] are filled */
} snapshot;

/* With one reference, the caller's. The table is still empty: snapshot_fill. */
bool snapshot_load(snapshot **out, const snapshot_sources *sources, int32_t workers, error *error);

snapshot *snapshot_hold(snapshot *snapshot); /* one reference more; returns its argument */
void snapshot_release(snapshot *snapshot);   /* NULL is fine; the last one frees it */

/* Computes the next part of the table, some 20 ms of work; false when there is nothing left. */
bool snapshot_fill(snapshot *snapshot);

/* One forecast with its intervals; `calibrated` false: the checkpoint has none. */
typedef struct forecast {
    float value; /* next-day return as a fraction */
    bool has_intervals;
    double interval[CONFORMAL_LEVELS][2]; /* low, high: 80%, 95% */
} forecast;

/* `volatility` is vol20 unscaled, of the day the window ends. */
forecast snapshot_forecast(const snapshot *snapshot, float value, double volatility);

/* vol20 of a scaled window's last day. */
double snapshot_volatility(const snapshot *snapshot, const float *window);

/* Row of (ticker, date), where a window ends; `has_date` false: the latest. Fails with the reason,
 * and *unknown says whether it is the ticker or day that does not exist. */
bool snapshot_find(int64_t *row, const snapshot *snapshot, const char *ticker, bool has_date,
                   int32_t date, error *error);

#endif
