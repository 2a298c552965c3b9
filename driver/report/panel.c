#include "report/panel.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "report/rank.h"

static bool allocate(panel *out, int64_t rows, int64_t days, error *error) {
    *out = (panel){.rows = rows, .days = days};
    size_t n = (size_t)rows;
    out->day_first = calloc((size_t)days + 1, sizeof *out->day_first);
    out->day_date = calloc((size_t)days + 1, sizeof *out->day_date);
    out->ticker = calloc(n + 1, sizeof *out->ticker);
    out->window_end = calloc(n + 1, sizeof *out->window_end);
    out->actual = calloc(n + 1, sizeof *out->actual);
    out->tradeable = calloc(n + 1, sizeof *out->tradeable);
    out->actual_rank = calloc(n + 1, sizeof *out->actual_rank);
    if (!out->day_first || !out->day_date || !out->ticker || !out->window_end || !out->actual ||
        !out->tradeable || !out->actual_rank) {
        panel_free(out);
        return error_set(error, "out of memory for %lld rows of the report", (long long)rows);
    }
    return true;
}

void panel_free(panel *panel) {
    free(panel->day_first);
    free(panel->day_date);
    free(panel->ticker);
    free(panel->window_end);
    free(panel->actual);
    free(panel->tradeable);
    free(panel->actual_rank);
    memset(panel, 0, sizeof *panel);
}

typedef struct ranking {
    panel *panel;
    atomic_bool out_of_memory;
} ranking;

static void rank_day(int64_t day, void *context) {
    ranking *work = context;
    panel *panel = work->panel;
    int64_t first = panel->day_first[day], count = panel->day_first[day + 1] - first;
    ranked *order = malloc(2 * (size_t)count * sizeof *order);
    if (order) {
        rank_sort(order, order + count, panel->actual + first, count);
        rank_assign(panel->actual_rank + first, order, count);
    } else {
        atomic_store(&work->out_of_memory, true);
    }
    free(order);
}

static bool rank_actual(panel *out, error *error) {
    ranking work = {.panel = out};
    parallel_for(out->days, rank_day, &work);
    return !work.out_of_memory || error_set(error, "out of memory for ranking the returns");
}

/* A counting sort by date: the data set's rows are in ticker order, so each day's are too.
 * next [last-first+2]: rows of each date on entry, used up as each date's next free row. */
static bool fill(panel *out, int64_t *next, const dataset *dataset, window_range range,
                 int32_t first, int32_t last, error *error) {
    int64_t days = 0, rows = 0;
    for (int32_t i = 0; i <= last - first; i++) {
        days += next[i] > 0;
        rows += next[i];
    }
    if (!allocate(out, rows, days, error)) {
        return false;
    }
    for (int64_t i = 0, day = 0, row = 0; i <= last - first; i++) {
        int64_t here = next[i];
        next[i] = row;
        if (here > 0) {
            out->day_date[day] = first + (int32_t)i;
            row += here;
            out->day_first[++day] = row;
        }
    }
    for (window_run run = {0}; window_run_next(&run, dataset, range);) {
        for (int64_t source = run.first; source <= run.last; source++) {
            int64_t row = next[dataset_date(dataset, source) - first]++;
            out->ticker[row] = run.ticker;
            out->window_end[row] = (int32_t)source;
            out->actual[row] = dataset_return(dataset, source);
            out->tradeable[row] = dataset_tradeable(dataset, source);
        }
    }
    return true;
}

int64_t panel_widest_day(const panel *panel) {
    int64_t widest = 0;
    for (int64_t day = 0; day < panel->days; day++) {
        int64_t count = panel->day_first[day + 1] - panel->day_first[day];
        widest = count > widest ? count : widest;
    }
    return widest;
}

bool panel_select(panel *out, const dataset *dataset, window_range range, error *error) {
    int32_t first = INT32_MAX, last = INT32_MIN; /* the dates that occur */
    for (window_run run = {0}; window_run_next(&run, dataset, range);) {
        int32_t from = dataset_date(dataset, run.first), to = dataset_date(dataset, run.last);
        first = from < first ? from : first;
        last = to > last ? to : last;
    }
    if (first > last) {
        return allocate(out, 0, 0, error);
    }
    int64_t *next = calloc((size_t)(last - first) + 1, sizeof *next);
    if (!next) {
        return error_set(error, "out of memory for the days of the report");
    }
    for (window_run run = {0}; window_run_next(&run, dataset, range);) {
        for (int64_t row = run.first; row <= run.last; row++) {
            next[dataset_date(dataset, row) - first]++;
        }
    }
    bool ok = fill(out, next, dataset, range, first, last, error);
    free(next);
    if (ok && !rank_actual(out, error)) {
        panel_free(out);
        ok = false;
    }
    return ok;
}
