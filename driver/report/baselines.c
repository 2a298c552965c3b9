#include "report/baselines.h"

#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"

const char *const baseline_key[BASELINE_COUNT] = {
    "zero",           "train_mean",   "ticker_mean", "last_return", "minus_last_return",
    "ridge_last_row", "ridge_window",
};

const char *const baseline_label[BASELINE_COUNT] = {
    "Zero",
    "Train mean",
    "Mean of the ticker",
    "Last return",
    "Minus last return",
    "Ridge on the last row",
    "Ridge on the window",
};

typedef struct averaging {
    const dataset *dataset;
    window_range train;
    double *sum;      /* [tickers] */
    int64_t *windows; /* [tickers] */
} averaging;

static void sum_ticker(int64_t index, void *context) {
    const averaging *work = context;
    window_run run = {.next = (int32_t)index};
    if (window_run_next(&run, work->dataset, work->train) && run.ticker == index) {
        for (int64_t row = run.first; row <= run.last; row++) {
            work->sum[index] += dataset_return(work->dataset, row);
        }
        work->windows[index] = run.last - run.first + 1;
    }
}

static bool fit_means(baselines *out, const dataset *dataset, window_range train, error *error) {
    const int32_t tickers = dataset->market->count;
    averaging work = {.dataset = dataset, .train = train};
    work.windows = calloc((size_t)tickers + 1, sizeof *work.windows);
    work.sum = out->ticker_mean = calloc((size_t)tickers + 1, sizeof *out->ticker_mean);
    if (!work.windows || !work.sum) {
        free(work.windows);
        return error_set(error, "out of memory for the means of %d tickers", tickers);
    }
    parallel_for(tickers, sum_ticker, &work);
    double sum = 0;
    int64_t count = 0;
    for (int32_t ticker = 0; ticker < tickers; ticker++) {
        sum += work.sum[ticker];
        count += work.windows[ticker];
    }
    out->train_mean = count > 0 ? sum / (double)count : 0;
    for (int32_t ticker = 0; ticker < tickers; ticker++) {
        out->ticker_mean[ticker] = work.windows[ticker] > 0
                                       ? work.sum[ticker] / (double)work.windows[ticker]
                                       : out->train_mean;
    }
    free(work.windows);
    return true;
}

bool baselines_fit(baselines *out, const dataset *dataset, window_range train, error *error) {
    memset(out, 0, sizeof *out);
    int32_t steps = dataset->options.time_steps;
    bool ok = fit_means(out, dataset, train, error) &&
              ridge_fit(&out->last_row, dataset, 1, train, error) &&
              ridge_fit(&out->window, dataset, steps, train, error);
    if (!ok) {
        baselines_free(out);
    }
    return ok;
}

void baselines_free(baselines *baselines) {
    free(baselines->ticker_mean);
    baselines->ticker_mean = NULL;
}

/* p[t]/p[t-1] - 1: the label of the row before. */
static double last_return(const dataset *dataset, int64_t row) {
    bool same = row > 0 && dataset_ticker(dataset, row - 1) == dataset_ticker(dataset, row);
    return same ? dataset_return(dataset, row - 1) : 0;
}

static double forecast_row(const baselines *b, baseline which, const dataset *dataset,
                           int64_t row) {
    switch (which) {
    case BASELINE_TRAIN_MEAN:
        return b->train_mean;
    case BASELINE_TICKER_MEAN:
        return b->ticker_mean[dataset_ticker(dataset, row)];
    case BASELINE_LAST_RETURN:
        return last_return(dataset, row);
    case BASELINE_MINUS_LAST_RETURN:
        return -last_return(dataset, row);
    case BASELINE_RIDGE_LAST_ROW:
        return ridge_forecast(&b->last_row, dataset, row);
    case BASELINE_RIDGE_WINDOW:
        return ridge_forecast(&b->window, dataset, row);
    case BASELINE_ZERO:
    case BASELINE_COUNT:
        break;
    }
    return 0;
}

void baselines_forecast(double *forecast, const baselines *baselines, baseline which,
                        const dataset *dataset, const panel *panel, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        forecast[i] = forecast_row(baselines, which, dataset, panel->window_end[first + i]);
    }
}
