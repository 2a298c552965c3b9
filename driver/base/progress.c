#define _POSIX_C_SOURCE 200809L
#include "base/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double terminal_interval = 0.1; /* ten reports a second */
static const double plain_interval = 5.0;
enum { BAR_WIDTH = 28 };

double progress_clock(void) {
    struct timespec now = {0};
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) {
        return 0.0;
    }
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_start(progress *progress, const char *what, int64_t total, bool quiet) {
    progress->what = what;
    progress->total = total;
    progress->quiet = quiet;
    progress->terminal = isatty(STDERR_FILENO) == 1;
    progress->started = progress_clock();
    progress->drawn = progress->started;
}

static void draw(const progress *progress, int64_t done, const char *detail, double now) {
    const double fraction = progress->total > 0 ? (double)done / (double)progress->total : 1.0;
    const double elapsed = now - progress->started;
    const double left = fraction > 0 ? elapsed / fraction - elapsed : 0.0;
    if (!progress->terminal) {
        fprintf(stderr, "%s: %3.0f%%, %.0f s left, %s\n", progress->what, 100 * fraction, left,
                detail);
        return;
    }
    char bar[BAR_WIDTH + 1];
    const int filled = (int)(fraction * BAR_WIDTH);
    memset(bar, ' ', BAR_WIDTH);
    memset(bar, '#', (size_t)(filled < BAR_WIDTH ? filled : BAR_WIDTH));
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3.0f%% %4.0f s left, %s", progress->what, bar, 100 * fraction,
            left, detail);
    fflush(stderr);
}

void progress_update(progress *progress, int64_t done, const char *detail) {
    const double now = progress_clock();
    const double interval = progress->terminal ? terminal_interval : plain_interval;
    if (progress->quiet || now - progress->drawn < interval) {
        return;
    }
    progress->drawn = now;
    draw(progress, done, detail, now);
}

void progress_finish(progress *progress) {
    if (!progress->quiet && progress->terminal) {
        fputs("\r\033[K", stderr);
    }
}
