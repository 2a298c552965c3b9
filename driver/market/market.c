#define _POSIX_C_SOURCE 200809L
#include "market/market.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/parallel.h"
#include "base/sha256.h"
#include "market/alignment.h"
#include "market/columns.h"
#include "market/field.h"
#include "market/gzip.h"
#include "market/price_file.h"

/* A ticker that was read, before all are there and sorted. */
typedef struct found_ticker {
    char name[TICKER_NAME_SIZE];
    int32_t file;
    column_slice slice;
} found_ticker;

typedef struct found_file {
    char *path; /* owned */
    char sha256[SHA256_TEXT_SIZE];
    bool unadjusted;
    text bad, explanation; /* see price_file.h */
} found_file;

typedef struct reading {
    market *market;
    const market_options *options;
    found_file *files; /* [file_count], by name */
    int64_t file_count;
    atomic_int_least64_t first_failure; /* index of the first file that failed so far */
    error error;                        /* its message */
    pthread_mutex_t mutex;              /* guards what follows and `error` */
    columns *columns;
    found_ticker *tickers; /* [count] */
    int64_t count, capacity;
    text warnings;
} reading;

static bool is_price_file(const char *name) {
    static const char *const endings[] = {".csv", ".txt", ".tsv", ".csv.gz", ".txt.gz", ".tsv.gz"};
    size_t length = strlen(name);
    if (name[0] == '.')
        return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; ++i) {
        size_t ending = strlen(endings[i]);
        field tail = {name + length - ending, (int32_t)ending};
        if (length > ending && field_equals(tail, endings[i]))
            return true;
    }
    return false;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const found_file *)a)->path, ((const found_file *)b)->path);
}

static bool add_file(reading *r, const char *folder, const char *name, error *error) {
    found_file *files = realloc(r->files, (size_t)(r->file_count + 1) * sizeof *r->files);
    if (files)
        r->files = files;
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = files ? malloc(size) : NULL;
    if (!path)
        return error_set(error, "%s: no memory for the names of its files", folder);
    snprintf(path, size, "%s%s%s", folder, *name ? "/" : "", name);
    r->files[r->file_count++] = (found_file){.path = path};
    return true;
}

static bool list_files(reading *r, const char *path, error *error) {
    struct stat status;
    if (stat(path, &status) != 0)
        return error_set(error, "%s: can't be opened: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return add_file(r, path, "", error);
    DIR *folder = opendir(path);
    if (!folder)
        return error_set(error, "%s: can't be opened: %s", path, strerror(errno));
    bool ok = true;
    int64_t others = 0;
    for (struct dirent *entry; ok && (entry = readdir(folder));)
        if (is_price_file(entry->d_name))
            ok = add_file(r, path, entry->d_name, error);
        else
            others += entry->d_name[0] != '.';
    closedir(folder);
    if (ok && r->options->explain && others > 0)
        fprintf(stderr, "%s: %" PRId64 " files that are not .csv, .txt or .tsv are ignored\n", path,
                others);
    if (ok && r->file_count == 0)
        return error_set(error, "%s: no price files (.csv, .txt, .tsv, also .gz) in it", path);
    if (ok)
        qsort(r->files, (size_t)r->file_count, sizeof *r->files, by_path);
    return ok;
}

static bool keep_series(reading *r, int64_t file, const price_series *series) {
    if (r->count == r->capacity) {
        int64_t capacity = r->capacity ? r->capacity * 2 : 64;
        found_ticker *tickers = realloc(r->tickers, (size_t)capacity * sizeof *tickers);
        if (!tickers)
            return false;
        r->tickers = tickers;
        r->capacity = capacity;
    }
    found_ticker *found = &r->tickers[r->count++];
    *found = (found_ticker){.file = (int32_t)file};
    memcpy(found->name, series->name, sizeof found->name);
    return columns_append(r->columns, &found->slice, series->dates, series->adj_close,
                          series->volume, series->days);
}

static bool read_file(reading *r, int64_t index, price_file *parsed, error *error) {
    found_file *file = &r->files[index];
    char *data = NULL, *unpacked = NULL;
    size_t size = 0;
    bool ok = file_read(file->path, &data, &size, error);
    if (ok)
        sha256_text(file->sha256, data, size);
    if (ok && gzip_is(data, size)) {
        ok = gzip_unpack(&unpacked, &size, file->path, data, size, error);
        free(data);
        data = unpacked;
    }
    ok = ok && price_file_parse(parsed, file->path, data, size, r->options, error);
    free(data);
    return ok;
}

static void read_one(int64_t index, void *context) {
    reading *r = context;
    if (index > atomic_load(&r->first_failure))
        return; /* an earlier file's message is what the user gets */
    price_file parsed = {.count = 0};
    error error = {""};
    bool ok = read_file(r, index, &parsed, &error);
    pthread_mutex_lock(&r->mutex);
    for (int32_t i = 0; ok && i < parsed.count; ++i)
        ok = keep_series(r, index, &parsed.series[i]) ||
             error_set(&error, "%s: no memory for its prices", r->files[index].path);
    if (ok) {
        found_file *file = &r->files[index];
        r->market->bad_rows += parsed.bad_rows;
        file->unadjusted = !parsed.adjusted;
        if (parsed.cut_short)
            text_printf(&parsed.bad,
                        "%s: the last line has no line end; if the file was cut short, its last "
                        "value is wrong\n",
                        file->path);
        file->bad = parsed.bad;
        file->explanation = parsed.explanation;
        parsed.bad = parsed.explanation = (text){.length = 0};
    } else if (index < atomic_load(&r->first_failure)) {
        atomic_store(&r->first_failure, index);
        r->error = error;
    }
    pthread_mutex_unlock(&r->mutex);
    price_file_free(&parsed);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const found_ticker *)a)->name, ((const found_ticker *)b)->name);
}

/* Sorts the tickers, leaves out (or refuses) those with too few days, and refuses those that are
 * there twice. */
static bool choose_tickers(reading *r, error *error) {
    qsort(r->tickers, (size_t)r->count, sizeof *r->tickers, by_name);
    int64_t kept = 0;
    for (int64_t i = 0; i < r->count; ++i) {
        const found_ticker *found = &r->tickers[i];
        if (i > 0 && strcmp(found->name, found[-1].name) == 0)
            return error_set(error, "ticker %s is in %s and in %s; remove one", found->name,
                             r->files[found[-1].file].path, r->files[found->file].path);
        if (found->slice.days >= MARKET_LEAST_DAYS) {
            r->tickers[kept++] = *found;
            continue;
        }
        if (!r->options->skip_bad_rows)
            return error_set(error,
                             "%s: ticker %s has %" PRId32 " days; a window with its warm-up and "
                             "label takes %d. Bring more prices, remove it, or leave it out with "
                             "--skip-bad-rows",
                             r->files[found->file].path, found->name, found->slice.days,
                             MARKET_LEAST_DAYS);
        ++r->market->tickers_dropped;
        text_printf(&r->warnings, "warning: %s: left out, only %" PRId32 " days\n", found->name,
                    found->slice.days);
    }
    r->count = kept;
    if (kept == 0)
        return error_set(error, "no ticker has the %d days that a window takes", MARKET_LEAST_DAYS);
    return true;
}

/* What `sha256sum FILE... | sha256sum` prints in the files' folder. */
static bool hash_files(reading *r, error *error) {
    text lines = {.length = 0};
    for (int64_t i = 0; i < r->file_count; ++i) {
        const char *path = r->files[i].path, *slash = strrchr(path, '/');
        text_printf(&lines, "%s  %s\n", r->files[i].sha256, slash ? slash + 1 : path);
    }
    bool ok = text_ok(&lines);
    if (ok)
        sha256_text(r->market->sha256, lines.data, lines.length);
    text_free(&lines);
    return ok || error_set(error, "no memory for the files' checksums");
}

/* The tickers' arrays, now that the columns don't move any more. */
static void point_tickers(market *market, const columns *columns, const column_slice *slices) {
    market->rows = 0;
    for (int32_t k = 0; k < market->count; ++k) {
        ticker *ticker = &market->tickers[k];
        ticker->days = slices[k].days;
        ticker->dates = columns->dates + slices[k].date;
        ticker->adj_close = columns->adj_close + slices[k].row;
        if (slices[k].whole)
            ticker->whole_volume = columns->whole_volume + slices[k].volume;
        else
            ticker->volume = columns->volume + slices[k].volume;
        market->rows += ticker->days;
    }
}

static bool assemble(reading *r, error *error) {
    market *market = r->market;
    market->tickers = calloc((size_t)r->count, sizeof *market->tickers);
    column_slice *slices = calloc((size_t)r->count, sizeof *slices);
    bool ok = market->tickers && slices;
    if (!ok)
        error_set(error, "no memory for %" PRId64 " tickers", r->count);
    for (int64_t i = 0; ok && i < r->count; ++i) {
        memcpy(market->tickers[i].name, r->tickers[i].name, TICKER_NAME_SIZE);
        slices[i] = r->tickers[i].slice;
        market->rows_read += slices[i].days;
    }
    if (ok) {
        market->count = (int32_t)r->count;
        ok = alignment_apply(market, r->columns, slices, &r->warnings, error);
    }
    if (ok) {
        point_tickers(market, r->columns, slices);
        alignment_warn_moves(market, &r->warnings);
        alignment_warn_future(market, &r->warnings);
    }
    free(slices);
    return ok;
}

static void print_notes(reading *r) {
    int64_t unadjusted = 0;
    for (int64_t i = 0; i < r->file_count; ++i) {
        const found_file *file = &r->files[i];
        if (r->options->explain && file->explanation.length > 0)
            fputs(file->explanation.data, stderr);
        if (file->bad.length > 0)
            fputs(file->bad.data, stderr);
        unadjusted += file->unadjusted;
    }
    if (unadjusted > 0)
        fprintf(stderr,
                "%" PRId64 " of %" PRId64 " price files have no adjusted close: their close is "
                "taken as adjusted already\n",
                unadjusted, r->file_count);
    if (r->market->bad_rows > 0)
        fprintf(stderr, "%" PRId64 " bad rows left out\n", r->market->bad_rows);
    if (r->warnings.length > 0)
        fputs(r->warnings.data, stderr);
}

bool market_read(market *out, const char *path, const market_options *options, error *error) {
    *out = (market){.count = 0};
    reading r = {.market = out, .options = options, .first_failure = INT64_MAX};
    pthread_mutex_init(&r.mutex, NULL);
    bool ok = false;
    r.columns = calloc(1, sizeof *r.columns);
    out->columns = r.columns;
    if (!r.columns) {
        error_set(error, "no memory for a market");
        goto done;
    }
    if (!list_files(&r, path, error))
        goto done;
    parallel_for(r.file_count, read_one, &r);
    if (r.first_failure < r.file_count) {
        *error = r.error;
        goto done;
    }
    if (!choose_tickers(&r, error) || !hash_files(&r, error) || !assemble(&r, error))
        goto done;
    print_notes(&r);
    ok = true;
done:
    for (int64_t i = 0; i < r.file_count; ++i) {
        free(r.files[i].path);
        text_free(&r.files[i].bad);
        text_free(&r.files[i].explanation);
    }
    free(r.files);
    free(r.tickers);
    text_free(&r.warnings);
    pthread_mutex_destroy(&r.mutex);
    if (!ok)
        market_free(out);
    return ok;
}

void market_free(market *market) {
    if (market->columns)
        columns_free(market->columns);
    free(market->columns);
    free(market->tickers);
    *market = (struct market){0};
}

void market_forget_volumes(market *market) {
    columns_forget_volumes(market->columns);
    for (int32_t k = 0; k < market->count; ++k) {
        market->tickers[k].volume = NULL;
        market->tickers[k].whole_volume = NULL;
    }
}

double ticker_volume(const ticker *ticker, int32_t day) {
    return ticker->volume ? ticker->volume[day] : ticker->whole_volume[day];
}

int32_t market_find(const market *market, const char *name) {
    int32_t low = 0, high = market->count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int order = strcmp(market->tickers[middle].name, name);
        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}
