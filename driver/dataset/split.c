#include "dataset/split.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

/* First day of the ticker that ends a window, and the day after the last one with a label. */
static int32_t first_end(int32_t time_steps) {
    return DATASET_WARM_UP + time_steps - 1;
}

static int32_t labelled_end(const ticker *ticker) {
    return ticker->days - 1;
}

/* First index in [low, high) with dates[index] >= date, or high. */
static int32_t lower_bound(const int32_t *dates, int32_t low, int32_t high, int32_t date) {
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (dates[middle] < date)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* How many labelled windows of all tickers end on each day from `first` on. */
typedef struct calendar {
    int32_t first, days;
    int64_t *windows; /* [days] */
    int64_t total;
} calendar;

static bool calendar_count(calendar *out, const market *market, int32_t time_steps, error *error) {
    int32_t first = INT32_MAX, last = INT32_MIN;
    for (int32_t k = 0; k < market->count; ++k) {
        const ticker *ticker = &market->tickers[k];
        if (first_end(time_steps) >= labelled_end(ticker))
            continue;
        if (ticker->dates[0] < first)
            first = ticker->dates[0];
        if (ticker->dates[ticker->days - 1] > last)
            last = ticker->dates[ticker->days - 1];
    }
    if (first > last)
        return error_set(error,
                         "no ticker has a labelled window: that takes %d days of prices (%d before "
                         "the first features, %d of the window, its label)",
                         first_end(time_steps) + 2, DATASET_WARM_UP, time_steps);
    *out = (calendar){.first = first, .days = last - first + 1};
    out->windows = calloc((size_t)out->days, sizeof *out->windows);
    if (!out->windows)
        return error_set(error, "no memory for a calendar of %d days", out->days);
    for (int32_t k = 0; k < market->count; ++k) {
        const ticker *ticker = &market->tickers[k];
        for (int32_t day = first_end(time_steps); day < labelled_end(ticker); ++day)
            ++out->windows[ticker->dates[day] - first];
        if (first_end(time_steps) < labelled_end(ticker))
            out->total += labelled_end(ticker) - first_end(time_steps);
    }
    return true;
}

/* The latest day with at most `most` windows before it: a day with windows, or the one after all.
 */
static int32_t find_cut(const calendar *calendar, double most) {
    int64_t before = 0;
    int32_t cut = 0;
    for (int32_t day = 0; day <= calendar->days; ++day) {
        if (day == calendar->days || calendar->windows[day] > 0) {
            if ((double)before > most + 1e-6) /* 0.7 * 10 may come out below 7 */
                break;
            cut = day;
        }
        if (day < calendar->days)
            before += calendar->windows[day];
    }
    return calendar->first + cut;
}

static int64_t windows_before(const calendar *calendar, int32_t date) {
    int64_t before = 0;
    for (int32_t day = 0; day < date - calendar->first && day < calendar->days; ++day)
        before += calendar->windows[day];
    return before;
}

/* The day that leaves out `embargo` days with windows before `cut`. */
static int32_t embargo_start(const calendar *calendar, int32_t cut, int32_t embargo) {
    int32_t day = cut - calendar->first;
    while (embargo > 0 && day > 0)
        if (calendar->windows[--day] > 0)
            --embargo;
    return calendar->first + day;
}

static int32_t first_label(const market *market, int32_t time_steps, int32_t cut) {
    int32_t first = INT32_MAX;
    for (int32_t k = 0; k < market->count; ++k) {
        const ticker *ticker = &market->tickers[k];
        int32_t begin = first_end(time_steps), end = labelled_end(ticker);
        int32_t day = begin < end ? lower_bound(ticker->dates, begin, end, cut) : end;
        if (day < end && ticker->dates[day + 1] < first)
            first = ticker->dates[day + 1];
    }
    return first;
}

bool split_find(split *out, const market *market, const dataset_options *options, error *error) {
    calendar calendar = {0};
    if (!calendar_count(&calendar, market, options->time_steps, error))
        return false;
    int32_t train = options->by_date ? options->train_first_date : calendar.first;
    int32_t test = options->by_date
                       ? options->test_first_date
                       : find_cut(&calendar, options->train_fraction * (double)calendar.total);
    int32_t validation = test;
    if (options->validation_fraction > 0) {
        int64_t before = windows_before(&calendar, train);
        validation = find_cut(
            &calendar, (double)before + (1 - options->validation_fraction) *
                                            (double)(windows_before(&calendar, test) - before));
    }
    out->first[BLOCK_TRAIN] = train;
    out->first[BLOCK_VALIDATION] = validation;
    out->first[BLOCK_TEST] = test;
    for (int block = BLOCK_TRAIN; block < BLOCK_TEST; ++block) {
        int32_t cut = out->first[block + 1];
        out->end[block] = embargo_start(&calendar, cut, options->embargo_days);
        out->label_end[block] = first_label(market, options->time_steps, cut);
    }
    out->end[BLOCK_TEST] = out->label_end[BLOCK_TEST] = INT32_MAX;
    free(calendar.windows);
    return true;
}

void split_days(const split *split, const ticker *ticker, int32_t time_steps, int block,
                int32_t *begin, int32_t *end, int64_t *purged) {
    int32_t low = first_end(time_steps), high = labelled_end(ticker);
    if (low >= high) {
        *begin = *end = low;
        return;
    }
    const int32_t *dates = ticker->dates;
    int32_t next = block == BLOCK_TEST ? INT32_MAX : split->first[block + 1];
    *begin = lower_bound(dates, low, high, split->first[block]);
    int32_t block_end = lower_bound(dates, *begin, high, next);
    int32_t embargoed = lower_bound(dates, *begin, block_end, split->end[block]);
    /* Day t's label is known on day t + 1. */
    int32_t known = lower_bound(dates, *begin + 1, block_end + 1, split->label_end[block]) - 1;
    *end = embargoed < known ? embargoed : known;
    *purged += block_end - *end;
}
