/* What a walk-forward run trains: the model that was the newest on each day of the past. Time is
 * cut into windows; each window trains on the years before its first test day and forecasts the
 * days from there to the next window's. In every window there is one model a learning rate and
 * seed.
 *
 * Policy: a model is a file of its own in <out>/models, so what is finished is what is there. */
#ifndef WALK_FORWARD_PLAN_H
#define WALK_FORWARD_PLAN_H

#include "rp/rp.h"

#include "base/error.h"
#include "dataset/dataset.h"

enum { WALK_RATES = 16, WALK_PATH_SIZE = 4096, WALK_NAME_SIZE = 80, WALK_WINDOW_NAME = 8 };

typedef struct walk_options {
    int64_t train_years, test_months, step_months;
    bool expanding; /* training begins with the prices; else train_years before the test days */
    double rates[WALK_RATES];
    int32_t rate_count;
    uint64_t first_seed;
    int64_t seeds, epochs;
    dataset_options dataset;    /* time_steps, embargo_days */
    rp_trainer_options trainer; /* all but seed and learning rate */
    const char *out;            /* folder, borrowed */
    int32_t threads;            /* models at a time on the CPU; 0: one a core */
    bool quiet;
} walk_options;

typedef struct walk_window {
    dataset_options dataset; /* with this window's cuts */
    int32_t end_date;        /* first test day of the next window; INT32_MAX: none */
    int32_t train_last_date; /* what lies in it, by the last day of a window */
    int32_t test_first_date, test_last_date;
    int64_t train_windows, test_windows, purged_windows;
    char name[WALK_WINDOW_NAME]; /* "2019-01", of the first test month */
} walk_window;

typedef struct walk_job {
    int32_t window, rate;
    uint64_t seed;
    error failure; /* "": none */
} walk_job;

typedef struct walk_plan {
    const walk_options *options; /* borrowed */
    const market *market;        /* borrowed */
    walk_window *windows;        /* [window_count] */
    int32_t window_count;
    walk_job *jobs; /* [job_count] by window, learning rate, seed */
    int64_t job_count;
} walk_plan;

bool walk_plan_make(walk_plan *out, const walk_options *options, const market *market,
                    error *error);
void walk_plan_free(walk_plan *plan);

/* "2019-01_rate0.001_seed1" */
void walk_job_name(char name[WALK_NAME_SIZE], const walk_plan *plan, const walk_job *job);
bool walk_job_path(char path[WALK_PATH_SIZE], const walk_plan *plan, const walk_job *job,
                   error *error);
bool walk_job_finished(const walk_plan *plan, const walk_job *job);
int64_t walk_job_steps(const walk_plan *plan, const walk_job *job); /* of the optimiser */

/* Makes the folder, or makes sure that what it holds was trained as this plan says. `make` false:
 * it must be there already. */
bool walk_plan_open_folder(const walk_plan *plan, bool make, error *error);

/* A line a window, and how many models are finished already. */
void walk_plan_print(const walk_plan *plan, FILE *file);

#endif
