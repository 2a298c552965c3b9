/* Everything that is said about a model: collected here once, then written as text, JSON, a page
 * or a table of forecasts. The writers only read. */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include "base/json.h"
#include "base/text.h"
#include "dataset/dataset_metadata.h"
#include "report/baselines.h"
#include "report/bootstrap.h"
#include "report/coverage.h"
#include "report/verdict.h"

enum { REPORT_MODELS = 64 };

/* One trained model: one seed. */
typedef struct report_model {
    const char *checkpoint; /* path, borrowed */
    const char *seed;       /* as in its metadata, borrowed */
    const char *losses;     /* "[...]" mean training loss of each epoch, borrowed; NULL: unknown */
    const char *validation_losses; /* the same of the validation windows */
    char version[13];              /* first 12 hex digits of the weights' checksum */
    double *forecast;              /* [panel.rows], owned by the report */
} report_model;

typedef struct report {
    const dataset *dataset;           /* borrowed */
    const dataset_metadata *metadata; /* borrowed */
    struct audit audit;
    struct panel panel; /* the test period */
    struct baselines baselines;
    double *baseline_forecast[BASELINE_COUNT]; /* [panel.rows] each, owned, where the baselines were
                                                  fitted again and again; NULL: from `baselines` */
    int32_t model_count;
    report_model models[REPORT_MODELS];
    statistics model_statistics[REPORT_MODELS];
    statistics seed_mean, seed_deviation; /* over the models */
    struct daily daily;                   /* of the first model, like everything below */
    struct intervals intervals;           /* 95% */
    struct coverage coverage;             /* when metadata->calibrated */
    statistics baseline_statistics[BASELINE_COUNT];
    intervals baseline_intervals[BASELINE_COUNT];
    struct verdict verdict;
} report;

/* Selects the test period (from metadata->test_first_date on) and fits the baselines. */
bool report_begin(report *out, const dataset *dataset, const dataset_metadata *metadata,
                  const audit *audit, error *error);

/* What a baseline forecasts for the panel's rows first .. first + count - 1. */
void report_baseline(double *forecast, const report *report, baseline which, int64_t first,
                     int64_t count);

/* Takes over model->forecast, in the order of report->panel. */
void report_add_model(report *report, const report_model *model);

/* Measures models and baselines and reaches the verdict. */
bool report_finish(report *report, error *error);

void report_free(report *report);

/* ---- Writers ------------------------------------------------------------------------------------
 */
void report_text(text *out, const report *report);

/* What of the price files was not used, in a line; nothing when all was. */
void report_price_notes(text *out, const report *report);

/* Members of an object that is open in `json`. */
void report_json(json *json, const report *report);

/* A self-contained page; `provenance` is one line about command, commit, date and machine. */
bool report_html(text *out, const report *report, const char *provenance, error *error);

/* CSV: one line a test window with what happened and what the model and each baseline forecast. */
bool report_forecasts(text *out, const report *report, error *error);

#endif
