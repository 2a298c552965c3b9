#include "report/window_run.h"

/* Index of the first of the ticker's days that is `date` or later. */
static int64_t first_day(const ticker *ticker, int32_t date) {
    int64_t low = 0, high = ticker->days;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (ticker->dates[middle] < date) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool window_run_next(window_run *run, const dataset *dataset, int32_t first_date,
                     int32_t last_date) {
    while (run->next < dataset->market->count) {
        run->ticker = run->next++;
        const ticker *ticker = &dataset->market->tickers[run->ticker];
        int64_t row = dataset->first_row[run->ticker], end = dataset->first_row[run->ticker + 1];
        int64_t row_of_day_0 = row - DATASET_WARM_UP;
        int64_t from = row_of_day_0 + first_day(ticker, first_date);
        int64_t past =
            last_date < INT32_MAX ? row_of_day_0 + first_day(ticker, last_date + 1) : end;
        int64_t first_window = row + dataset->options.time_steps - 1;
        int64_t last_label = end - 2; /* the last row has none */
        run->first = from > first_window ? from : first_window;
        run->last = past - 1 < last_label ? past - 1 : last_label;
        if (run->first <= run->last) {
            return true;
        }
    }
    return false;
}
