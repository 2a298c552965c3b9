/* The rows of one price file, checked one by one.
 *
 * Policy: nothing is guessed and nothing silently left out. A row with a value that is missing, not
 * a number, not positive (volume: negative), or a day that is out of order or there twice, is
 * refused with file, line, column, value and reason, or, with skip_bad_rows, counted. */
#ifndef MARKET_PRICE_FILE_H
#define MARKET_PRICE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"
#include "market/market.h"

/* One ticker's rows, oldest first. */
typedef struct price_series {
    char name[TICKER_NAME_SIZE];
    int32_t days, capacity;
    int32_t *dates;    /* [days] strictly increasing */
    double *adj_close; /* [days] */
    double *volume;    /* [days] */
    int32_t *lines;    /* [days] of the file, for messages */
} price_series;

typedef struct price_file {
    price_series *series; /* [count], owned */
    int32_t count, capacity;
    int64_t bad_rows;
    bool adjusted;    /* has an adjusted close; otherwise its close is taken as adjusted already */
    text bad;         /* the first bad rows, a line each */
    text explanation; /* what was recognised, one line */
    bool cut_short;   /* the last line has no line end: its last value may be incomplete */
} price_file;

/* `data` [size] is the file's content (unpacked); `path` names it in messages and, without folder
 * and endings, is the ticker when the file doesn't say. */
bool price_file_parse(price_file *out, const char *path, const char *data, size_t size,
                      const market_options *options, error *error);
void price_file_free(price_file *file);

#endif
