/* The storage of a market: one array a column, a ticker's days a stretch of it. Tickers whose days
 * are a stretch of days already stored share them, so that a common calendar is stored once. */
#ifndef MARKET_COLUMNS_H
#define MARKET_COLUMNS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct columns {
    double *adj_close; /* [rows], owned */
    int64_t rows, row_capacity;
    uint32_t *whole_volume; /* [whole_rows], owned: of tickers whose volumes all fit */
    int64_t whole_rows, whole_capacity;
    double *volume; /* [volume_rows], owned: of the others */
    int64_t volume_rows, volume_capacity;
    int32_t *dates; /* [date_count], owned */
    int64_t date_count, date_capacity;
    int64_t longest, longest_days; /* the longest run of dates: what others are looked up in */
} columns;

/* Where a ticker's days lie. Offsets, because the arrays move while they grow. */
typedef struct column_slice {
    int64_t row, date, volume;
    int32_t days;
    bool whole; /* `volume` is in whole_volume */
} column_slice;

/* False: no memory. */
bool columns_append(columns *columns, column_slice *out, const int32_t *dates,
                    const double *adj_close, const double *volume, int32_t days);
/* Keeps the listed days (increasing indices) of the slice and forgets the others. */
bool columns_keep(columns *columns, column_slice *slice, const int32_t *kept, int32_t count);
void columns_forget_volumes(columns *columns);
void columns_free(columns *columns);

#endif
