#include "walk_forward/walk_training.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/signals.h"
#include "training/training.h"
#include "training/training_save.h"

static const double report_seconds = 0.2; /* a chunk of steps aims at this */
enum { FIRST_CHUNK = 4, LARGEST_CHUNK = 1 << 16 };

/* Models in training, side by side: members [count], and the data sets that they were made from. */
typedef struct team {
    int64_t count, capacity;
    rp_trainer **trainers; /* [count] */
    walk_job **jobs;       /* [count] */
    const dataset **data;  /* [count] each into `datasets` */
    dataset *datasets;     /* [capacity], [set_count] used */
    int64_t set_count;
} team;

typedef struct walk_run {
    walk_plan *plan;
    walk_training_result *result; /* of this rank */
    ranks *ranks;
    int64_t taken;         /* jobs, by all ranks */
    int64_t steps, models; /* trained by all ranks, as far as is known */
    int64_t chunk;
    progress bar;
} walk_run;

static bool team_allocate(team *team, int64_t capacity, error *error) {
    *team = (struct team){.capacity = capacity};
    size_t n = (size_t)capacity;
    team->trainers = calloc(n, sizeof *team->trainers);
    team->jobs = calloc(n, sizeof *team->jobs);
    team->data = calloc(n, sizeof *team->data);
    team->datasets = calloc(n, sizeof *team->datasets);
    return (team->trainers && team->jobs && team->data && team->datasets) ||
           error_set(error, "out of memory for %" PRId64 " models at once", capacity);
}

static void team_clear(team *team) {
    for (int64_t i = 0; i < team->count; i++) {
        rp_trainer_free(team->trainers[i]);
    }
    for (int64_t i = 0; i < team->set_count; i++) {
        dataset_free(&team->datasets[i]);
    }
    team->count = team->set_count = 0;
}

static void team_free(team *team) {
    team_clear(team);
    free(team->trainers);
    free(team->jobs);
    free(team->data);
    free(team->datasets);
}

static void fail(walk_run *run, walk_job *job, const char *reason) {
    error_set(&job->failure, "%s", reason);
    run->result->failed++;
    char name[WALK_NAME_SIZE];
    walk_job_name(name, run->plan, job);
    progress_finish(&run->bar);
    fprintf(stderr, "%s failed: %s\n", name, reason);
}

/* Trainers of one window, which share its data; failures are the jobs' own. */
static bool add_window(team *team, walk_run *run, walk_job **jobs, int64_t count, error *error) {
    const walk_options *options = run->plan->options;
    rp_trainer_options *each = calloc((size_t)count, sizeof *each);
    if (!each) {
        return error_set(error, "out of memory for %" PRId64 " models", count);
    }
    for (int64_t i = 0; i < count; i++) {
        each[i] = options->trainer;
        each[i].seed = jobs[i]->seed;
        each[i].learning_rate = options->rates[jobs[i]->rate];
    }
    struct error reason = {""};
    dataset *set = &team->datasets[team->set_count];
    const walk_window *window = &run->plan->windows[jobs[0]->window];
    if (dataset_build(set, run->plan->market, &window->dataset, NULL, &reason)) {
        team->set_count++;
        const rp_data data = training_data(set, 0, set->train_windows);
        if (rp_trainers_create(team->trainers + team->count, each, count, &data) != RP_OK) {
            training_fail(&reason, "can't train");
        }
    }
    free(each);
    for (int64_t i = 0; i < count; i++) {
        if (reason.message[0]) {
            fail(run, jobs[i], reason.message);
            continue;
        }
        team->jobs[team->count] = jobs[i];
        team->data[team->count++] = set;
    }
    return true;
}

/* Takes jobs that nobody has finished, up to the team's capacity. */
static bool fill(team *team, walk_run *run, error *error) {
    walk_plan *plan = run->plan;
    walk_job **taken = calloc((size_t)team->capacity, sizeof *taken);
    if (!taken) {
        return error_set(error, "out of memory for %" PRId64 " jobs", team->capacity);
    }
    int64_t count = 0;
    bool ok = true;
    while (ok && count < team->capacity && run->taken < plan->job_count) {
        ok = ranks_add(&run->taken, run->ranks, "taken", 1, error);
        walk_job *job = &plan->jobs[run->taken - 1];
        if (ok && run->taken <= plan->job_count && !walk_job_finished(plan, job)) {
            taken[count++] = job;
        }
    }
    for (int64_t first = 0, end = 0; ok && first < count; first = end) {
        while (end < count && taken[end]->window == taken[first]->window) {
            end++;
        }
        ok = add_window(team, run, taken + first, end - first, error);
    }
    free(taken);
    return ok;
}

static int64_t steps_left(const team *team, const walk_run *run, int64_t member) {
    rp_progress progress = {0};
    return rp_trainer_progress(team->trainers[member], &progress) == RP_OK
               ? walk_job_steps(run->plan, team->jobs[member]) - progress.step
               : 0;
}

static bool save(const team *team, walk_run *run, int64_t member, error *error) {
    char path[WALK_PATH_SIZE];
    rp_checkpoint *checkpoint = NULL;
    rp_progress progress = {0};
    if (!walk_job_path(path, run->plan, team->jobs[member], error)) {
        return false;
    }
    if (rp_trainer_snapshot(&checkpoint, team->trainers[member]) != RP_OK ||
        rp_trainer_progress(team->trainers[member], &progress) != RP_OK) {
        return training_fail(error, "snapshot");
    }
    const bool ok = training_save(path, checkpoint, team->data[member], NULL, error);
    rp_checkpoint_free(checkpoint);
    run->result->trained++;
    run->result->samples += progress.samples;
    return ok;
}

/* Saves and lets go the members that are finished, and lets go those that have failed. */
static bool dismiss(team *team, walk_run *run, error *error) {
    int64_t kept = 0;
    bool ok = true;
    for (int64_t i = 0; i < team->count; i++) {
        const char *failure = rp_trainer_failure(team->trainers[i]);
        if (failure[0]) {
            fail(run, team->jobs[i], failure);
        } else if (steps_left(team, run, i) == 0) {
            ok = ok && save(team, run, i, error);
        } else {
            team->trainers[kept] = team->trainers[i];
            team->jobs[kept] = team->jobs[i];
            team->data[kept++] = team->data[i];
            continue;
        }
        rp_trainer_free(team->trainers[i]);
    }
    team->count = kept;
    return ok;
}

/* Every member goes on by one chunk, not past the end of the one that is nearest to it. */
static bool train_chunk(team *team, walk_run *run, error *error) {
    int64_t steps = run->chunk;
    for (int64_t i = 0; i < team->count; i++) {
        const int64_t left = steps_left(team, run, i);
        steps = left < steps ? left : steps;
    }
    const double start = progress_clock();
    if (rp_trainers_run(team->trainers, team->count, steps, run->plan->options->threads) != RP_OK) {
        return training_fail(error, "training");
    }
    const double seconds = progress_clock() - start;
    run->result->train_seconds += seconds;
    const int64_t members = team->count, trained = run->result->trained;
    const double fitting = report_seconds / (seconds > 0 ? seconds / (double)steps : 1);
    run->chunk = fitting < 1 ? 1 : fitting > LARGEST_CHUNK ? LARGEST_CHUNK : (int64_t)fitting;
    if (!dismiss(team, run, error)) {
        return false;
    }
    const int64_t finished = run->result->trained - trained;
    if (!ranks_check(run->ranks, error) ||
        !ranks_add(&run->steps, run->ranks, "steps", steps * members, error) ||
        !ranks_add(&run->models, run->ranks, "models", finished, error)) {
        return false;
    }
    char detail[96];
    snprintf(detail, sizeof detail, "%" PRId64 " models, %.2f models/s%s", run->models,
             (double)run->models / (progress_clock() - run->bar.started),
             run->result->failed > 0 ? ", some failed" : "");
    progress_update(&run->bar, run->steps, detail);
    return true;
}

/* What is not finished yet: models, and their steps. */
static int64_t find_work(const walk_plan *plan, int64_t *steps) {
    int64_t count = 0;
    *steps = 0;
    for (int64_t i = 0; i < plan->job_count; i++) {
        if (!walk_job_finished(plan, &plan->jobs[i])) {
            *steps += walk_job_steps(plan, &plan->jobs[i]);
            count++;
        }
    }
    return count;
}

/* The fewest rounds that train `jobs` models, and then equally many in each. */
static int64_t models_at_once(int64_t jobs, int64_t most, int32_t ranks) {
    const int64_t rounds = (jobs + most * ranks - 1) / (most * ranks);
    return rounds > 0 ? (jobs + rounds * ranks - 1) / (rounds * ranks) : 1;
}

/* The ranks' results together. */
static bool add_up(walk_training_result *result, ranks *ranks, error *error) {
    int64_t microseconds = (int64_t)(1e6 * result->train_seconds);
    int64_t *const sums[] = {&result->trained, &result->failed, &result->samples, &microseconds};
    static const char *const names[] = {"sum/trained", "sum/failed", "sum/samples", "sum/time"};
    for (int i = 0; ranks->count > 1 && i < 4; i++) {
        int64_t ignored = 0;
        if (!ranks_add(&ignored, ranks, names[i], *sums[i], error)) {
            return false;
        }
    }
    if (!ranks_wait(ranks, "trained", error)) {
        return false;
    }
    for (int i = 0; ranks->count > 1 && i < 4; i++) {
        if (!ranks_add(sums[i], ranks, names[i], 0, error)) {
            return false;
        }
    }
    result->train_seconds = 1e-6 * (double)microseconds / ranks->count;
    return true;
}

bool walk_train(walk_training_result *result, walk_plan *plan, ranks *ranks, error *error) {
    *result = (walk_training_result){0};
    walk_run run = {.plan = plan, .result = result, .ranks = ranks, .chunk = FIRST_CHUNK};
    team team = {0};
    int64_t most = 0, steps;
    rp_trainer_options all = plan->options->trainer;
    all.threads = plan->options->threads;
    signals_watch();
    const int64_t jobs = find_work(plan, &steps);
    bool ok = rp_trainers_at_once(&most, &all) == RP_OK || training_fail(error, "can't train");
    ok = ok && team_allocate(&team, models_at_once(jobs, most, ranks->count), error);
    progress_start(&run.bar, "walk-forward", steps, plan->options->quiet || ranks->rank > 0);
    while (ok && !result->interrupted && run.taken < plan->job_count) {
        ok = fill(&team, &run, error);
        while (ok && !result->interrupted && team.count > 0) {
            ok = train_chunk(&team, &run, error);
            result->interrupted = signals_received();
        }
        team_clear(&team);
    }
    progress_finish(&run.bar);
    team_free(&team);
    return ok && (result->interrupted || add_up(result, ranks, error));
}
