#define _POSIX_C_SOURCE 200809L
#include "serve/batcher.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "serve/predict_body.h"

int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool batcher_create(batcher *out, int32_t worker, metrics *metrics, error *error) {
    out->first = NULL;
    out->last = &out->first;
    out->worker = worker;
    out->metrics = metrics;
    out->features =
        malloc(sizeof *out->features * BATCH_WINDOWS * TIME_STEPS_MOST * DATASET_FEATURES);
    return out->features || error_set(error, "no memory for batches");
}

void batcher_free(batcher *batcher) {
    free(batcher->features);
    batcher->features = NULL;
}

void batcher_submit(batcher *batcher, batch_job *job) {
    job->next = NULL;
    job->done = 0;
    job->failed = false;
    job->submitted_ns = monotonic_ns();
    *batcher->last = job;
    batcher->last = &job->next;
}

static int32_t share(const batch_job *job, int32_t taken) {
    const int32_t left = job->windows - job->done, room = BATCH_WINDOWS - taken;
    return left < room ? left : room;
}

/* Windows of consecutive jobs of one model, up to a full batch. */
static int32_t gather(batcher *batcher) {
    const snapshot *snapshot = batcher->first->snapshot;
    const size_t window = (size_t)snapshot->time_steps * DATASET_FEATURES;
    int32_t taken = 0;
    for (batch_job *job = batcher->first; job && job->snapshot == snapshot && taken < BATCH_WINDOWS;
         job = job->next) {
        const int32_t count = share(job, taken);
        memcpy(batcher->features + (size_t)taken * window,
               job->features + (size_t)job->done * window,
               (size_t)count * window * sizeof *batcher->features);
        taken += count;
    }
    for (int32_t i = 0; i < taken; i++) {
        batcher->ends[i] = (i + 1) * snapshot->time_steps - 1;
    }
    return taken;
}

static void complete(batcher *batcher, batch_job *job, int64_t began, int64_t now) {
    metrics *metrics = batcher->metrics;
    counter_add(job->failed ? &metrics->inference_failures : &metrics->inferences, 1);
    counter_add(&metrics->queue_ns, (uint64_t)(began - job->submitted_ns));
    counter_add(&metrics->inference_ns, (uint64_t)(now - began));
    job->ready(job);
}

static void scatter(batcher *batcher, int32_t taken, bool ok, int64_t began, int64_t now) {
    for (int32_t given = 0; given < taken;) {
        batch_job *job = batcher->first;
        const int32_t count = share(job, BATCH_WINDOWS - (taken - given));
        memcpy(job->returns + job->done, batcher->returns + given,
               (size_t)count * sizeof *job->returns);
        job->failed |= !ok;
        job->done += count;
        given += count;
        if (job->done == job->windows) {
            batcher->first = job->next;
            if (!batcher->first) {
                batcher->last = &batcher->first;
            }
            complete(batcher, job, began, now);
        }
    }
}

bool batcher_run(batcher *batcher) {
    if (!batcher->first) {
        return false;
    }
    const snapshot *snapshot = batcher->first->snapshot;
    const int32_t taken = gather(batcher);
    const int64_t began = monotonic_ns();
    const bool ok =
        rp_predictor_run(batcher->returns, snapshot->predictors[batcher->worker], batcher->features,
                         (int64_t)taken * snapshot->time_steps, batcher->ends, taken) == RP_OK;
    const int64_t now = monotonic_ns();
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    metrics_batch(batcher->metrics, taken, now - began);
    atomic_store_explicit(&batcher->metrics->last_inference_ms,
                          (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000,
                          memory_order_relaxed);
    scatter(batcher, taken, ok, began, now);
    return batcher->first != NULL;
}
