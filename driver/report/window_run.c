#include "report/window_run.h"

window_range window_range_train(const dataset_metadata *metadata) {
    const dataset_options *options = &metadata->options;
    return (window_range){options->by_date ? options->train_first_date : INT32_MIN,
                          metadata->train_last_date, metadata->test_first_date + 1};
}

window_range window_range_test(const dataset_metadata *metadata) {
    return (window_range){metadata->test_first_date, INT32_MAX, INT32_MAX};
}

/* Number of the ticker's days that are earlier than `date`, or not later when `included`. */
static int64_t days_before(const ticker *ticker, int32_t date, bool included) {
    int64_t low = 0, high = ticker->days;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (ticker->dates[middle] < date || (included && ticker->dates[middle] == date)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

bool window_run_next(window_run *run, const dataset *dataset, window_range range) {
    while (run->next < dataset->market->count) {
        run->ticker = run->next++;
        const ticker *ticker = &dataset->market->tickers[run->ticker];
        int64_t first = days_before(ticker, range.first_date, false);
        int64_t whole = DATASET_WARM_UP + dataset->options.time_steps - 1;
        int64_t last = days_before(ticker, range.last_date, true) - 1;
        /* The label of day d is known on day d + 1, which must exist and lie in time. */
        last = least(last, days_before(ticker, range.label_before, false) - 2);
        int64_t row_of_day_0 = dataset->first_row[run->ticker] - DATASET_WARM_UP;
        run->first = row_of_day_0 + (first > whole ? first : whole);
        run->last = row_of_day_0 + least(last, ticker->days - 2);
        if (run->first <= run->last) {
            return true;
        }
    }
    return false;
}
