/* synthesize: a market with known properties, written as price files. */
#define _POSIX_C_SOURCE 200809L
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "base/file.h"
#include "base/options.h"
#include "base/parallel.h"
#include "command.h"
#include "market/synthetic.h"

typedef struct writing {
    const synthetic_market *market;
    const char *folder;
    atomic_bool failed;
    pthread_mutex_t mutex; /* guards error */
    error error;
} writing;

static void append_bar(text *text, const synthetic_bar *bar) {
    char date[DATE_SIZE];
    date_format(date, bar->date);
    text_printf(text, "%s,%.6f,%.6f,%.6f,%.6f,%.6f,%.0f\n", date, bar->open, bar->high, bar->low,
                bar->close, bar->adj_close, bar->volume);
}

static bool write_ticker(const writing *writing, int32_t index, synthetic_bar *bars, double *mean,
                         error *error) {
    char name[TICKER_NAME_SIZE], path[PATH_MAX];
    synthetic_name(name, index);
    int length = snprintf(path, sizeof path, "%s/%s.csv", writing->folder, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return error_set(error, "%s: the name is too long", writing->folder);
    if (!synthetic_ticker(bars, mean, writing->market, index, error))
        return false;
    text text = {.length = 0};
    text_append_string(&text, "date,open,high,low,close,adj_close,volume\n");
    for (int32_t day = 0; day < writing->market->options.days; ++day)
        append_bar(&text, &bars[day]);
    bool ok = file_write_text(path, &text, error);
    text_free(&text);
    return ok;
}

static void write_one(int64_t index, void *context) {
    writing *writing = context;
    if (atomic_load(&writing->failed))
        return;
    size_t days = (size_t)writing->market->options.days;
    synthetic_bar *bars = malloc(days * sizeof *bars);
    double *mean = malloc(days * sizeof *mean);
    error error = {""};
    bool ok = bars && mean ? write_ticker(writing, (int32_t)index, bars, mean, &error)
                           : error_set(&error, "no memory for a ticker of %zu days", days);
    free(bars);
    free(mean);
    if (!ok && !atomic_exchange(&writing->failed, true)) {
        pthread_mutex_lock(&writing->mutex);
        writing->error = error;
        pthread_mutex_unlock(&writing->mutex);
    }
}

/* Other price files in the folder would become part of the market. */
static bool check_folder(const char *path, int32_t tickers, error *error) {
    DIR *folder = opendir(path);
    if (!folder)
        return error_set(error, "%s: can't be opened: %s", path, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(folder));) {
        const char *name = entry->d_name, *ending = strrchr(name, '.');
        char ours[TICKER_NAME_SIZE];
        int32_t index = 0;
        if (!ending || strcmp(ending, ".csv") != 0)
            continue;
        for (const char *digit = name + 3; strncmp(name, "SYN", 3) == 0 && digit < ending; ++digit)
            index =
                *digit >= '0' && *digit <= '9' && index < 1000000 ? index * 10 + *digit - '0' : 0;
        synthetic_name(ours, index - 1);
        if (index < 1 || index > tickers || strncmp(ours, name, (size_t)(ending - name)) != 0)
            ok = error_set(error, "%s: holds another price file, %s; choose an empty folder", path,
                           name);
    }
    closedir(folder);
    return ok;
}

static bool synthesize(const char *folder, const synthetic_options *options, error *error) {
    synthetic_market market;
    if (!file_make_folder(folder, error) || !check_folder(folder, options->tickers, error) ||
        !synthetic_create(&market, options, error))
        return false;
    writing writing = {.market = &market, .folder = folder};
    pthread_mutex_init(&writing.mutex, NULL);
    parallel_for(options->tickers, write_one, &writing);
    pthread_mutex_destroy(&writing.mutex);
    synthetic_free(&market);
    if (writing.failed)
        *error = writing.error;
    return !writing.failed;
}

int cmd_synthesize(int argc, char **argv) {
    const char *folder = NULL;
    int64_t tickers = 50, days = 2516;
    uint64_t seed = 1;
    double signal = 0;
    option options[] = {
        {"out", OPTION_STRING, &folder, "DIR", "folder for the price files", .required = true},
        {"tickers", OPTION_INT64, &tickers, "N", "how many", 1, 100000},
        {"days", OPTION_INT64, &days, "N", "weekdays from 2014-01-02 on", MARKET_LEAST_DAYS, 50000},
        {"seed", OPTION_UINT64, &seed, "N", "the same seed gives the same market"},
        {"signal", OPTION_DOUBLE, &signal, "S", "R2 of the best forecast possible", 0, 0.99},
    };
    int status;
    if (!OPTIONS_PARSE("synthesize", "Makes a synthetic market with known properties.", options,
                       argc, argv, &status))
        return status;
    synthetic_options market = {(int32_t)tickers, (int32_t)days, seed, signal};
    error error = {""};
    if (!synthesize(folder, &market, &error)) {
        fprintf(stderr, "return-predictor synthesize: %s\n", error.message);
        return EXIT_FAILED;
    }
    fprintf(stderr,
            "%s: %" PRId64 " tickers of %" PRId64 " days, seed %" PRIu64 "; the best forecast "
            "possible has an R2 of %g%%\n",
            folder, tickers, days, seed, 100 * signal);
    return EXIT_DONE;
}
