#include "market/columns.h"

#include <stdlib.h>
#include <string.h>

static bool grow(void **array, int64_t capacity, size_t size) {
    void *grown = realloc(*array, (size_t)capacity * size);
    if (grown)
        *array = grown;
    return grown;
}

static int64_t larger_capacity(int64_t capacity, int64_t needed) {
    int64_t doubled = capacity ? capacity * 2 : 4096;
    return doubled > needed ? doubled : needed;
}

static bool reserve_rows(columns *columns, int64_t more) {
    int64_t needed = columns->rows + more;
    if (needed <= columns->row_capacity)
        return true;
    int64_t capacity = larger_capacity(columns->row_capacity, needed);
    if (!grow((void **)&columns->adj_close, capacity, sizeof(double)) ||
        !grow((void **)&columns->volume, capacity, sizeof(double)))
        return false;
    columns->row_capacity = capacity;
    return true;
}

/* Offset of `dates` [days] in the stored dates, added to them if need be; -1: no memory. */
static int64_t share_dates(columns *columns, const int32_t *dates, int32_t days) {
    const int32_t *longest = columns->dates ? columns->dates + columns->longest : NULL;
    int64_t low = 0, high = columns->longest_days;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (longest[middle] < dates[0])
            low = middle + 1;
        else
            high = middle;
    }
    if (low + days <= columns->longest_days &&
        memcmp(longest + low, dates, (size_t)days * sizeof *dates) == 0)
        return columns->longest + low;
    if (columns->date_count + days > columns->date_capacity) {
        int64_t capacity = larger_capacity(columns->date_capacity, columns->date_count + days);
        if (!grow((void **)&columns->dates, capacity, sizeof *columns->dates))
            return -1;
        columns->date_capacity = capacity;
    }
    int64_t offset = columns->date_count;
    memcpy(columns->dates + offset, dates, (size_t)days * sizeof *dates);
    columns->date_count += days;
    if (days > columns->longest_days) {
        columns->longest = offset;
        columns->longest_days = days;
    }
    return offset;
}

bool columns_append(columns *columns, column_slice *out, const int32_t *dates,
                    const double *adj_close, const double *volume, int32_t days) {
    *out = (column_slice){.row = columns->rows, .days = days};
    if (days == 0)
        return true;
    if (!reserve_rows(columns, days))
        return false;
    out->date = share_dates(columns, dates, days);
    if (out->date < 0)
        return false;
    memcpy(columns->adj_close + out->row, adj_close, (size_t)days * sizeof *adj_close);
    memcpy(columns->volume + out->row, volume, (size_t)days * sizeof *volume);
    columns->rows += days;
    return true;
}

bool columns_keep(columns *columns, column_slice *slice, const int32_t *kept, int32_t count) {
    int32_t *dates = malloc((size_t)count * sizeof *dates + 1);
    if (!dates)
        return false;
    for (int32_t i = 0; i < count; ++i) {
        dates[i] = columns->dates[slice->date + kept[i]];
        columns->adj_close[slice->row + i] = columns->adj_close[slice->row + kept[i]];
        columns->volume[slice->row + i] = columns->volume[slice->row + kept[i]];
    }
    int64_t offset = count > 0 ? share_dates(columns, dates, count) : slice->date;
    free(dates);
    if (offset < 0)
        return false;
    slice->date = offset;
    slice->days = count;
    return true;
}

void columns_free(columns *columns) {
    free(columns->adj_close);
    free(columns->volume);
    free(columns->dates);
    *columns = (struct columns){0};
}
