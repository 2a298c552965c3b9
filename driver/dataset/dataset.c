#include "dataset/dataset.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "dataset/split.h"

void dataset_options_init(dataset_options *options) {
    *options = (dataset_options){.time_steps = DATASET_TIME_STEPS, .train_fraction = 0.8};
}

static bool check_options(const dataset_options *options, error *error) {
    if (options->time_steps < 1 || options->time_steps > 64)
        return error_set(error, "a window of %d days is out of range (1 to 64)",
                         options->time_steps);
    if (!(options->train_fraction >= 0 && options->train_fraction <= 1))
        return error_set(error, "the training share %g is out of range (0 to 1)",
                         options->train_fraction);
    if (!(options->validation_fraction >= 0 && options->validation_fraction < 1))
        return error_set(error, "the validation share %g is out of range (0 to less than 1)",
                         options->validation_fraction);
    if (options->embargo_days < 0)
        return error_set(error, "an embargo of %d days is out of range", options->embargo_days);
    return true;
}

static bool place_rows(dataset *out, error *error) {
    const market *market = out->market;
    out->first_row = calloc((size_t)market->count + 1, sizeof *out->first_row);
    if (!out->first_row)
        return error_set(error, "no memory for %d tickers", market->count);
    for (int32_t k = 0; k < market->count; ++k) {
        int32_t rows = market->tickers[k].days - DATASET_WARM_UP;
        out->first_row[k + 1] = out->first_row[k] + (rows > 0 ? rows : 0);
        out->labelled_rows += rows > 1 ? rows - 1 : 0;
    }
    out->rows = out->first_row[market->count];
    if (out->rows > INT32_MAX)
        return error_set(error, "%" PRId64 " rows are more than %d: use fewer tickers or days",
                         out->rows, INT32_MAX);
    out->features = malloc((size_t)out->rows * DATASET_FEATURES * sizeof *out->features + 1);
    out->targets = malloc((size_t)out->rows * sizeof *out->targets + 1);
    if (!out->features || !out->targets)
        return error_set(error, "no memory for %" PRId64 " rows of features", out->rows);
    return true;
}

/* One block's windows after another's; within each by ticker, then date. */
static bool place_windows(dataset *out, const split *split, error *error) {
    int64_t *count[BLOCK_COUNT] = {&out->train_windows, &out->validation_windows,
                                   &out->test_windows};
    const market *market = out->market;
    out->windows = malloc((size_t)out->labelled_rows * sizeof *out->windows + 1);
    if (!out->windows)
        return error_set(error, "no memory for %" PRId64 " windows", out->labelled_rows);
    out->train_last_date = INT32_MIN;
    out->test_first_date = INT32_MAX;
    int64_t window = 0;
    for (int block = 0; block < BLOCK_COUNT; ++block) {
        int64_t first = window;
        for (int32_t k = 0; k < market->count; ++k) {
            const ticker *ticker = &market->tickers[k];
            int32_t begin, end;
            split_days(split, ticker, out->options.time_steps, block, &begin, &end,
                       &out->purged_windows);
            for (int32_t day = begin; day < end; ++day)
                out->windows[window++] = (int32_t)(out->first_row[k] + day - DATASET_WARM_UP);
            if (begin < end && block == BLOCK_TRAIN &&
                ticker->dates[end - 1] > out->train_last_date)
                out->train_last_date = ticker->dates[end - 1];
            if (begin < end && block == BLOCK_TEST && ticker->dates[begin] < out->test_first_date)
                out->test_first_date = ticker->dates[begin];
        }
        *count[block] = window - first;
    }
    return true;
}

typedef struct preparation {
    dataset *dataset;
    const split *split;
    feature_moments *training; /* [tickers] of the rows that training windows cover */
    atomic_bool out_of_memory;
} preparation;

static double *raw_features(preparation *work, int64_t index) {
    const dataset *dataset = work->dataset;
    int64_t rows = dataset->first_row[index + 1] - dataset->first_row[index];
    double *raw = malloc((size_t)rows * DATASET_FEATURES * sizeof *raw + 1);
    if (raw)
        dataset_raw(dataset, (int32_t)index, raw);
    else
        atomic_store(&work->out_of_memory, true);
    return raw;
}

static void measure_ticker(int64_t index, void *context) {
    preparation *work = context;
    const ticker *ticker = &work->dataset->market->tickers[index];
    int32_t steps = work->dataset->options.time_steps, begin, end;
    int64_t purged = 0;
    split_days(work->split, ticker, steps, BLOCK_TRAIN, &begin, &end, &purged);
    if (begin >= end)
        return;
    double *raw = raw_features(work, index);
    int64_t first = begin - (steps - 1) - DATASET_WARM_UP, last = end - 1 - DATASET_WARM_UP;
    if (raw)
        work->training[index] =
            feature_moments_of(raw + first * DATASET_FEATURES, last - first + 1);
    free(raw);
}

static bool fit_scaler(dataset *out, const split *split, error *error) {
    int32_t count = out->market->count;
    if (out->train_windows == 0)
        return error_set(error, "no training windows to fit the scaler on: more prices or a larger "
                                "training share are needed");
    preparation work = {.dataset = out, .split = split};
    work.training = calloc((size_t)count, sizeof *work.training);
    if (work.training)
        parallel_for(count, measure_ticker, &work);
    if (!work.training || work.out_of_memory) {
        free(work.training);
        return error_set(error, "no memory to fit the scaler");
    }
    feature_moments all = {0};
    for (int32_t k = 0; k < count; ++k)
        feature_moments_merge(&all, &work.training[k]);
    out->scaler = scaler_from(&all);
    free(work.training);
    return true;
}

static void scale_ticker(int64_t index, void *context) {
    preparation *work = context;
    dataset *out = work->dataset;
    int64_t first = out->first_row[index], rows = out->first_row[index + 1] - first;
    double *raw = raw_features(work, index);
    if (!raw)
        return;
    for (int64_t row = 0; row < rows; ++row)
        for (int f = 0; f < DATASET_FEATURES; ++f)
            out->features[(first + row) * DATASET_FEATURES + f] =
                (float)scaler_apply(&out->scaler, f, raw[row * DATASET_FEATURES + f]);
    const double *p = out->market->tickers[index].adj_close + DATASET_WARM_UP;
    for (int64_t row = 0; row < rows; ++row)
        out->targets[first + row] = row + 1 < rows ? (float)(p[row + 1] / p[row] - 1) : NAN;
    free(raw);
}

bool dataset_build(dataset *out, const market *market, const dataset_options *options,
                   const scaler *fixed_scaler, error *error) {
    *out = (dataset){.market = market, .options = *options};
    split split;
    if (!check_options(options, error) || !split_find(&split, market, options, error) ||
        !place_rows(out, error) || !place_windows(out, &split, error))
        goto failed;
    if (fixed_scaler)
        out->scaler = *fixed_scaler;
    else if (!fit_scaler(out, &split, error))
        goto failed;
    preparation work = {.dataset = out};
    parallel_for(market->count, scale_ticker, &work);
    if (work.out_of_memory) {
        error_set(error, "no memory to scale the features");
        goto failed;
    }
    return true;
failed:
    dataset_free(out);
    return false;
}

void dataset_free(dataset *dataset) {
    free(dataset->first_row);
    free(dataset->features);
    free(dataset->targets);
    free(dataset->windows);
    *dataset = (struct dataset){0};
}

/* "1,234,567" */
static const char *grouped(char text[32], int64_t number) {
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%" PRId64, number), at = 0;
    for (int i = 0; i < length; ++i) {
        if (i > 0 && (length - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

void dataset_print_counts(const dataset *dataset, FILE *file) {
    int32_t tickers = dataset->market->count;
    char a[32], b[32];
    bool equal = true;
    for (int32_t k = 1; k < tickers; ++k)
        equal &= dataset->market->tickers[k].days == dataset->market->tickers[0].days;
    fprintf(file, "%s tickers", grouped(a, tickers));
    if (equal)
        fprintf(file, ", %s labelled rows each", grouped(a, dataset->labelled_rows / tickers));
    fprintf(file, ", %s labelled rows in all; ", grouped(a, dataset->labelled_rows));
    int64_t windows = dataset->train_windows + dataset->validation_windows + dataset->test_windows;
    fprintf(file, "%s windows: %s train", grouped(a, windows), grouped(b, dataset->train_windows));
    if (dataset->validation_windows > 0)
        fprintf(file, ", %s validation", grouped(a, dataset->validation_windows));
    fprintf(file, ", %s test", grouped(a, dataset->test_windows));
    if (dataset->purged_windows > 0)
        fprintf(file, " (%s left out at the cuts)", grouped(a, dataset->purged_windows));
    fprintf(file, "\n");
}
