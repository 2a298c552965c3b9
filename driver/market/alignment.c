#include "market/alignment.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/date.h"

/* A ticker has no say about days in gaps longer than this; gaps in the common calendar longer than
 * this are warned of too. The longest of the NYSE since 1933 is a week (September 2001). */
enum { LONGEST_GAP = 7, WARNINGS_PER_TICKER = 3 };
/* From Friday to Tuesday. Daily prices are seldom further apart, weekly ones always. */
enum { DAILY_STEP = 4 };

static const double split_fall = 0.55, split_rise = 1.9; /* price ratios from day to day */
static const double wild_fall = 0.2, wild_rise = 5;      /* with or without a jump in volume */
static const double volume_jump = 1.5;
enum { VOLUME_DAYS = 20 };

/* For each day from `first` on: tickers that have it minus tickers that lack it; in the end, the
 * number of common days before it. */
typedef struct calendar {
    int32_t first, days;
    int32_t *votes; /* [days + 1] */
} calendar;

static void vote(calendar *calendar, const int32_t *dates, int32_t days) {
    for (int32_t i = 0; i < days; ++i) {
        ++calendar->votes[dates[i] - calendar->first];
        if (i > 0 && dates[i] - dates[i - 1] <= LONGEST_GAP)
            for (int32_t date = dates[i - 1] + 1; date < dates[i]; ++date)
                --calendar->votes[date - calendar->first];
    }
}

static bool is_common(const calendar *calendar, int32_t date) {
    const int32_t *before = calendar->votes + (date - calendar->first);
    return before[1] > before[0];
}

/* Common days strictly between two dates. */
static int32_t common_between(const calendar *calendar, int32_t from, int32_t to) {
    return calendar->votes[to - calendar->first] - calendar->votes[from + 1 - calendar->first];
}

static bool calendar_find(calendar *out, const columns *columns, const column_slice *slices,
                          int32_t count, error *error) {
    int32_t first = INT32_MAX, last = INT32_MIN;
    for (int32_t k = 0; k < count; ++k) {
        const int32_t *dates = columns->dates + slices[k].date;
        first = dates[0] < first ? dates[0] : first;
        last = dates[slices[k].days - 1] > last ? dates[slices[k].days - 1] : last;
    }
    *out = (calendar){.first = first, .days = last - first + 1};
    out->votes = calloc((size_t)out->days + 1, sizeof *out->votes);
    if (!out->votes)
        return error_set(error, "no memory for a calendar of %" PRId32 " days", out->days);
    for (int32_t k = 0; k < count; ++k)
        vote(out, columns->dates + slices[k].date, slices[k].days);
    int32_t before = 0;
    for (int32_t day = 0; day <= out->days; ++day) {
        int32_t common = out->votes[day] > 0;
        out->votes[day] = before;
        before += common;
    }
    return true;
}

static void warn(market *market, text *warnings, const char *name, const char *what, int32_t date,
                 int32_t next) {
    char from[DATE_SIZE], to[DATE_SIZE];
    date_format(from, date);
    date_format(to, next);
    text_printf(warnings, "warning: %s: %s %s and %s\n", name, what, from, to);
    ++market->warnings;
}

static void check_gaps(market *market, const ticker *ticker, const calendar *calendar,
                       const int32_t *dates, int32_t days, text *warnings) {
    int32_t shown = 0, wide = 0;
    int64_t missing = 0;
    for (int32_t i = 1; i < days; ++i)
        wide += dates[i] - dates[i - 1] > DAILY_STEP;
    bool sparse = 2 * wide > days;
    if (sparse)
        warn(market, warnings, ticker->name,
             "most prices are more than four days apart (weekly or monthly ones?) between",
             dates[0], dates[days - 1]);
    for (int32_t i = 1; i < days; ++i) {
        int32_t lacking = common_between(calendar, dates[i - 1], dates[i]);
        missing += lacking;
        if (sparse || (lacking == 0 && dates[i] - dates[i - 1] <= LONGEST_GAP))
            continue;
        if (++shown <= WARNINGS_PER_TICKER) {
            char what[96];
            snprintf(what, sizeof what,
                     "no prices on %" PRId32 " days (%" PRId32
                     " of them trading days of others) between",
                     dates[i] - dates[i - 1] - 1, lacking);
            warn(market, warnings, ticker->name, what, dates[i - 1], dates[i]);
        }
    }
    if (shown > WARNINGS_PER_TICKER)
        text_printf(warnings, "warning: %s: and %" PRId32 " more such stretches\n", ticker->name,
                    shown - WARNINGS_PER_TICKER);
    market->days_missing += missing;
}

bool alignment_apply(market *market, columns *columns, column_slice *slices, text *warnings,
                     error *error) {
    calendar calendar;
    if (!calendar_find(&calendar, columns, slices, market->count, error))
        return false;
    bool ok = true;
    for (int32_t k = 0; ok && k < market->count; ++k) {
        column_slice *slice = &slices[k];
        int32_t *kept = malloc((size_t)slice->days * sizeof *kept);
        int32_t count = 0;
        for (int32_t day = 0; kept && day < slice->days; ++day)
            if (is_common(&calendar, columns->dates[slice->date + day]))
                kept[count++] = day;
        int32_t dropped = slice->days - count;
        ok = kept && (dropped == 0 || columns_keep(columns, slice, kept, count));
        free(kept);
        if (!ok)
            break;
        if (dropped > 0) {
            text_printf(warnings,
                        "warning: %s: %" PRId32 " rows dropped: most other tickers have no prices "
                        "on those days\n",
                        market->tickers[k].name, dropped);
            ++market->warnings;
            market->rows_dropped += dropped;
        }
        check_gaps(market, &market->tickers[k], &calendar, columns->dates + slice->date, count,
                   warnings);
    }
    free(calendar.votes);
    return ok || error_set(error, "no memory to align the tickers' calendars");
}

static bool volume_jumps(const ticker *ticker, int32_t day) {
    double mean = 0;
    int32_t first = day > VOLUME_DAYS ? day - VOLUME_DAYS : 0;
    for (int32_t i = first; i < day; ++i)
        mean += ticker_volume(ticker, i) / (day - first);
    double volume = ticker_volume(ticker, day);
    return volume > volume_jump * mean || volume * volume_jump < mean;
}

void alignment_warn_future(market *market, text *warnings) {
    const int32_t tomorrow = (int32_t)(time(NULL) / 86400) + 1; /* it has begun east of here */
    int32_t tickers = 0, last = 0;
    for (int32_t k = 0; k < market->count; ++k) {
        int32_t date = market->tickers[k].dates[market->tickers[k].days - 1];
        tickers += date > tomorrow;
        last = date > last ? date : last;
    }
    if (tickers == 0)
        return;
    char until[DATE_SIZE];
    date_format(until, last);
    text_printf(warnings, "warning: %" PRId32 " tickers have prices of days to come, until %s\n",
                tickers, until);
    ++market->warnings;
}

void alignment_warn_moves(market *market, text *warnings) {
    for (int32_t k = 0; k < market->count; ++k) {
        const ticker *ticker = &market->tickers[k];
        for (int32_t day = 1; day < ticker->days; ++day) {
            double ratio = ticker->adj_close[day] / ticker->adj_close[day - 1];
            bool wild = ratio < wild_fall || ratio > wild_rise;
            if (!wild && ((ratio > split_fall && ratio < split_rise) || !volume_jumps(ticker, day)))
                continue;
            char what[96];
            snprintf(what, sizeof what, "the price changes by %+.1f%% %s between",
                     100 * (ratio - 1),
                     wild ? "(a mistake, or an unadjusted split?)"
                          : "with a jump in volume (an unadjusted split?)");
            warn(market, warnings, ticker->name, what, ticker->dates[day - 1], ticker->dates[day]);
        }
    }
}
