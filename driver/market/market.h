/* Prices in memory: each ticker's days in date order, as read from price files or synthesized.
 *
 * Only what features and targets are computed from is kept, a column each, and tickers with the
 * same days share one column of dates: 12 bytes a row, so that 25 million rows take 300 MB. Open,
 * high, low and unadjusted close are checked while a file is read and then forgotten. */
#ifndef MARKET_MARKET_H
#define MARKET_MARKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum {
    TICKER_NAME_SIZE = 32,
    /* 20 days of warm-up, a window of 20 more rows (the warm-up's last day is the first), its
     * label: a ticker with fewer days has nothing to train on. */
    MARKET_LEAST_DAYS = 41
};

typedef struct ticker {
    char name[TICKER_NAME_SIZE];
    int32_t days;
    const int32_t *dates;         /* [days] days since 1970-01-01, strictly increasing */
    const double *adj_close;      /* [days] adjusted for splits and dividends */
    const double *volume;         /* [days], or NULL: */
    const uint32_t *whole_volume; /* [days], when all are whole numbers below 2^32 */
} ticker;

double ticker_volume(const ticker *ticker, int32_t day);

typedef struct market {
    ticker *tickers; /* [count], by name */
    int32_t count;
    int64_t rows;            /* days of all tickers */
    char sha256[65];         /* of the files: `LC_ALL=C; sha256sum * | sha256sum` */
    int64_t rows_read;       /* sound rows in the files */
    int64_t bad_rows;        /* left out because of --skip-bad-rows */
    int64_t rows_dropped;    /* left out because their day is not in the common calendar */
    int64_t days_missing;    /* of the common calendar, between a ticker's first and last day */
    int64_t tickers_dropped; /* too few days, left out because of --skip-bad-rows */
    int64_t warnings;        /* printed on standard error */
    struct columns *columns; /* what the tickers' arrays point into, owned */
} market;

typedef struct market_options {
    bool skip_bad_rows; /* count and leave out rows that can't be read, instead of refusing */
    bool explain;       /* say on standard error what was recognised in each file */
} market_options;

/* The rows of a command's option table that reading a market needs. */
#define MARKET_OPTIONS(prices, options)                                                            \
    {"prices",        OPTION_STRING, &(prices), "DIR", "folder of price files, or one file",       \
     .required = true},                                                                            \
        {"skip-bad-rows", OPTION_FLAG, &(options).skip_bad_rows, NULL,                             \
         "count and leave out rows that can't be read"},                                           \
    {                                                                                              \
        "explain", OPTION_FLAG, &(options).explain, NULL,                                          \
            "say what was recognised in each price file"                                           \
    }

/* Reads every price file in the folder `path` (or the one file `path`). Warnings and, with
 * `explain`, what was recognised go to standard error.
 *
 * Calendars that differ are aligned by date: a day belongs to the common calendar when more
 * tickers have it than lack it, where a ticker has a say from its first day to its last, except in
 * gaps of more than a week. Rows on other days are dropped and counted. */
bool market_read(market *out, const char *path, const market_options *options, error *error);
void market_free(market *market);

/* Gives back the memory of the volumes, a third of the market's, once features are computed. */
void market_forget_volumes(market *market);

/* Index of the ticker named `name`, or -1. */
int32_t market_find(const market *market, const char *name);

#endif
