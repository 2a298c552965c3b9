/* What a data set knows about a row without storing it. */
#include "dataset/dataset.h"

#include <math.h>

int32_t dataset_ticker(const dataset *dataset, int64_t row) {
    int32_t count = dataset->market->count;
    const int64_t *first_row = dataset->first_row;
    /* Right at once when all tickers have equally many rows. */
    int64_t rows_each = dataset->rows / count;
    int32_t guess = rows_each > 0 ? (int32_t)(row / rows_each) : 0;
    if (guess < count && first_row[guess] <= row && row < first_row[guess + 1])
        return guess;
    int32_t low = 0, high = count; /* first_row[low] <= row < first_row[high] */
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (first_row[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The row's ticker, and its day in *day. */
static const ticker *find_day(const dataset *dataset, int64_t row, int32_t *day) {
    int32_t index = dataset_ticker(dataset, row);
    *day = (int32_t)(row - dataset->first_row[index]) + DATASET_WARM_UP;
    return &dataset->market->tickers[index];
}

int32_t dataset_day(const dataset *dataset, int64_t row) {
    int32_t day;
    find_day(dataset, row, &day);
    return day;
}

int32_t dataset_date(const dataset *dataset, int64_t row) {
    int32_t day;
    const ticker *ticker = find_day(dataset, row, &day);
    return ticker->dates[day];
}

static double return_after(const dataset *dataset, int64_t row, int32_t days) {
    int32_t day;
    const ticker *ticker = find_day(dataset, row, &day);
    if (day + days >= ticker->days)
        return NAN;
    return ticker->adj_close[day + days] / ticker->adj_close[day + days - 1] - 1;
}

double dataset_return(const dataset *dataset, int64_t row) {
    return return_after(dataset, row, 1);
}

double dataset_tradeable(const dataset *dataset, int64_t row) {
    return return_after(dataset, row, 2);
}

double dataset_volatility(const dataset *dataset, int64_t row) {
    int32_t day;
    const ticker *ticker = find_day(dataset, row, &day);
    return features_volatility(ticker->adj_close, day);
}

void dataset_raw(const dataset *dataset, int32_t index, double *raw) {
    const ticker *ticker = &dataset->market->tickers[index];
    if (ticker->volume)
        features_compute(ticker->adj_close, ticker->volume, ticker->days, raw);
    else
        features_compute_whole(ticker->adj_close, ticker->whole_volume, ticker->days, raw);
}

int64_t dataset_find_row(const dataset *dataset, int32_t index, int32_t date) {
    if (index < 0 || index >= dataset->market->count)
        return -1;
    const ticker *ticker = &dataset->market->tickers[index];
    int32_t low = 0, high = ticker->days;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (ticker->dates[middle] < date)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == ticker->days || ticker->dates[low] != date || low < DATASET_WARM_UP)
        return -1;
    return dataset->first_row[index] + low - DATASET_WARM_UP;
}
