/* Dynamic batching: the windows of all requests that a worker read in one turn of its event loop
 * run through the model together.
 *
 * Latency bound: nothing ever waits for a batch to fill. A turn runs at most BATCH_WINDOWS windows
 * (some 5 ms of one core), so a request waits for the turn in progress and for the windows that
 * arrived before its own, never for a timer. */
#ifndef SERVE_BATCHER_H
#define SERVE_BATCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "serve/metrics.h"
#include "serve/snapshot.h"

enum { BATCH_WINDOWS = 512 };

/* Windows of one request; owner and arrays must live until `ready` is called. */
typedef struct batch_job {
    struct batch_job *next;
    const float *features; /* [windows][T][F] */
    float *returns;        /* [windows] */
    int32_t windows;
    int32_t done; /* computed so far */
    bool failed;  /* the model refused; returns are not to be used */
    const snapshot *snapshot;
    int64_t submitted_ns;
    void (*ready)(struct batch_job *job);
    void *owner;
} batch_job;

typedef struct batcher {
    batch_job *first, **last; /* in order of arrival */
    float *features;          /* [BATCH_WINDOWS][TIME_STEPS_MOST][F], owned */
    int32_t ends[BATCH_WINDOWS];
    float returns[BATCH_WINDOWS];
    int32_t worker; /* which of a snapshot's predictors is ours */
    metrics *metrics;
} batcher;

bool batcher_create(batcher *out, int32_t worker, metrics *metrics, error *error);
void batcher_free(batcher *batcher);

void batcher_submit(batcher *batcher, batch_job *job);
/* Runs one batch and calls `ready` of the jobs that it completes; true when jobs are left. */
bool batcher_run(batcher *batcher);

int64_t monotonic_ns(void);

#endif
