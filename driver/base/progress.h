/* How far a long job is, on standard error: a bar that redraws itself on a terminal, a plain line
 * now and then otherwise, nothing when quiet. */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
    const char *what; /* borrowed; "train cpu" */
    int64_t total;
    bool quiet, terminal;
    double started, drawn; /* seconds on the monotonic clock */
} progress;

void progress_start(progress *progress, const char *what, int64_t total, bool quiet);

/* Draws when enough time has passed since the last drawing. `detail` is added at the end. */
void progress_update(progress *progress, int64_t done, const char *detail);

/* Ends the bar's line. */
void progress_finish(progress *progress);

/* Seconds on a clock that only moves forward. */
double progress_clock(void);

#endif
