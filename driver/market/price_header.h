/* What the header of a price file says about its columns. Shapes that are recognised:
 *
 *     date,open,high,low,close,adj_close,volume      any order, case and spelling ("Adj Close")
 *     "Date","Close/Last","Volume",...               nasdaq.com
 *     <TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,...        stooq
 *     ...,symbol                                     one long file, a row a ticker and day
 *     Price,Close,Close,...                          yfinance, several header lines: prices,
 *     Ticker,AAPL,MSFT,...                             tickers (in either order) and, usually, the
 *     Date,,,...                                       name of the index */
#ifndef MARKET_PRICE_HEADER_H
#define MARKET_PRICE_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "market/field.h"
#include "market/market.h"

typedef enum column_kind {
    COLUMN_OPEN,
    COLUMN_HIGH,
    COLUMN_LOW,
    COLUMN_CLOSE,
    COLUMN_ADJ_CLOSE,
    COLUMN_VOLUME,
    COLUMN_VALUES, /* how many kinds have a number for each day */
    COLUMN_DATE = COLUMN_VALUES,
    COLUMN_TICKER,
    COLUMN_PERIOD, /* stooq's: D is daily */
    COLUMN_KINDS,
    COLUMN_UNKNOWN = COLUMN_KINDS
} column_kind;

extern const char *const column_name[COLUMN_KINDS];

/* The columns of one ticker; -1: none. */
typedef struct column_group {
    char ticker[TICKER_NAME_SIZE]; /* "" when the file's name or a column says it */
    int32_t at[COLUMN_VALUES];
} column_group;

typedef struct price_header {
    char delimiter;
    int32_t lines;                /* of the header */
    int32_t columns;              /* of each row */
    int32_t date, ticker, period; /* columns; -1: none */
    column_group *groups;         /* [group_count], owned; one unless tickers lie side by side */
    int32_t group_count;
    bool adjusted; /* every group has an adjusted close; otherwise every group has a close */
    int32_t unknown_columns;
} price_header;

/* Reads the header lines at [text, end); *rows is where the rows begin. `path` is for messages. */
bool price_header_read(price_header *out, const char *path, const char *text, const char *end,
                       const char **rows, error *error);
void price_header_free(price_header *header);

#endif
