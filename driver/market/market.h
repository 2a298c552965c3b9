/* Prices in memory: each ticker's days in date order, as read from price files or synthesized. */
#ifndef MARKET_MARKET_H
#define MARKET_MARKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct price_bar {
    int32_t date; /* days since 1970-01-01 */
    double open, high, low, close;
    double adj_close; /* adjusted for splits and dividends; what features and targets use */
    double volume;
} price_bar;

typedef struct ticker {
    char name[16];
    price_bar *bars; /* [days], strictly increasing dates */
    int32_t days;
} ticker;

typedef struct market {
    ticker *tickers; /* [count], by name */
    int32_t count;
    char sha256[65];    /* of the files read, in name order */
    int64_t rows_read;
    int64_t rows_dropped; /* by alignment to the common calendar, or --skip-bad-rows */
} market;

typedef struct market_options {
    bool skip_bad_rows; /* count and leave out rows that can't be read, instead of refusing */
    bool explain;       /* say on standard error what was recognised in each file */
} market_options;

/* Reads every price file in the folder `path` (or the one file `path`). */
bool market_read(market *out, const char *path, const market_options *options, error *error);
void market_free(market *market);

/* Index of the ticker named `name`, or -1. */
int32_t market_find(const market *market, const char *name);

#endif
