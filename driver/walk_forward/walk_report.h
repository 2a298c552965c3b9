/* The finished models of a plan, judged as one forecaster: each day of the test years is forecast
 * by the newest models trained before it, and the whole goes through the report of a single model.
 * Baselines are fitted again in every window, as the models are.
 *
 * A series is the forecasts of one learning rate and seed over all windows. One that lacks a
 * window, because a model failed, is not judged. */
#ifndef WALK_FORWARD_WALK_REPORT_H
#define WALK_FORWARD_WALK_REPORT_H

#include "report/report.h"
#include "report/series.h"
#include "walk_forward/plan.h"

typedef struct walk_series {
    int32_t rate;
    char seed[24], name[WALK_NAME_SIZE]; /* "rate0.001_seed1" */
    double *forecast;                    /* [panel.rows], the report's when complete, else owned */
    double *before;  /* [panel.rows] by the model of the window before; NaN in the first; owned */
    int64_t missing; /* windows */
} walk_series;

typedef struct walk_window_result {
    int64_t first_day, end_day; /* of the panel */
    moments ic, rank_ic;        /* over the series: each one's mean over the window's days */
    moments seeds_agree, refits_agree;
} walk_window_result;

typedef struct walk_report {
    const walk_plan *plan;     /* borrowed */
    dataset dataset;           /* of the first window */
    dataset_metadata metadata; /* of the same */
    struct report report;
    walk_series *series; /* [series_count] by learning rate, then seed */
    int32_t series_count;
    walk_window_result *windows;          /* [plan->window_count] */
    statistics mean_of_seeds[WALK_RATES]; /* the forecast averaged over the complete seeds */
    int32_t seeds_of_rate[WALK_RATES];    /* so many of them */
    moments seeds_agree;  /* over days and pairs of seeds: rank correlation of their forecasts */
    moments refits_agree; /* over days and series: of a window's model and the one before it */
} walk_report;

/* A model that can't be read counts as missing, and its job says why. */
bool walk_report_make(walk_report *out, walk_plan *plan, error *error);
void walk_report_free(walk_report *report);

void walk_report_text(text *out, const walk_report *report);

/* Members of an object that is open in `json`. */
void walk_report_json(json *json, const walk_report *report);

#endif
