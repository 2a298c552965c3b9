#include "report/window_run.h"

#include <math.h>

/* Enough rows of the same ticker, a known return, a date in range. */
static bool ends_window(const dataset *dataset, int64_t row, int32_t first_date,
                        int32_t last_date) {
    int64_t start = row - (dataset->options.time_steps - 1);
    return dataset_date(dataset, row) >= first_date && dataset_date(dataset, row) <= last_date &&
           start >= 0 && dataset_ticker(dataset, start) == dataset_ticker(dataset, row) &&
           isfinite(dataset_return(dataset, row));
}

bool window_run_next(window_run *run, const dataset *dataset, int32_t first_date,
                     int32_t last_date) {
    int64_t row = run->next;
    while (row < dataset->rows && !ends_window(dataset, row, first_date, last_date)) {
        row++;
    }
    run->first = row;
    while (row < dataset->rows &&
           dataset_ticker(dataset, row) == dataset_ticker(dataset, run->first) &&
           ends_window(dataset, row, first_date, last_date)) {
        row++;
    }
    run->last = row - 1;
    run->next = row;
    return run->first <= run->last;
}

double window_volatility(const dataset *dataset, int64_t row) {
    return dataset_volatility(dataset, row);
}
