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

/* Room for `needed` items in an array that has room for *capacity. */
static bool reserve(void **array, int64_t *capacity, int64_t needed, size_t size) {
    if (needed <= *capacity)
        return true;
    int64_t larger = larger_capacity(*capacity, needed);
    if (!grow(array, larger, size))
        return false;
    *capacity = larger;
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
    if (!reserve((void **)&columns->dates, &columns->date_capacity, columns->date_count + days,
                 sizeof *columns->dates))
        return -1;
    int64_t offset = columns->date_count;
    memcpy(columns->dates + offset, dates, (size_t)days * sizeof *dates);
    columns->date_count += days;
    if (days > columns->longest_days) {
        columns->longest = offset;
        columns->longest_days = days;
    }
    return offset;
}

static bool all_whole(const double *volume, int32_t days) {
    for (int32_t day = 0; day < days; ++day)
        if (!(volume[day] <= UINT32_MAX) || volume[day] != (double)(uint32_t)volume[day])
            return false;
    return true;
}

static bool append_volume(columns *columns, column_slice *out, const double *volume) {
    out->whole = all_whole(volume, out->days);
    if (!out->whole) {
        out->volume = columns->volume_rows;
        if (!reserve((void **)&columns->volume, &columns->volume_capacity,
                     columns->volume_rows + out->days, sizeof *columns->volume))
            return false;
        memcpy(columns->volume + out->volume, volume, (size_t)out->days * sizeof *volume);
        columns->volume_rows += out->days;
        return true;
    }
    out->volume = columns->whole_rows;
    if (!reserve((void **)&columns->whole_volume, &columns->whole_capacity,
                 columns->whole_rows + out->days, sizeof *columns->whole_volume))
        return false;
    for (int32_t day = 0; day < out->days; ++day)
        columns->whole_volume[out->volume + day] = (uint32_t)volume[day];
    columns->whole_rows += out->days;
    return true;
}

bool columns_append(columns *columns, column_slice *out, const int32_t *dates,
                    const double *adj_close, const double *volume, int32_t days) {
    *out = (column_slice){.row = columns->rows, .days = days};
    if (days == 0)
        return true;
    out->date = share_dates(columns, dates, days);
    if (out->date < 0 || !append_volume(columns, out, volume) ||
        !reserve((void **)&columns->adj_close, &columns->row_capacity, columns->rows + days,
                 sizeof *columns->adj_close))
        return false;
    memcpy(columns->adj_close + out->row, adj_close, (size_t)days * sizeof *adj_close);
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
        if (slice->whole)
            columns->whole_volume[slice->volume + i] =
                columns->whole_volume[slice->volume + kept[i]];
        else
            columns->volume[slice->volume + i] = columns->volume[slice->volume + kept[i]];
    }
    int64_t offset = count > 0 ? share_dates(columns, dates, count) : slice->date;
    free(dates);
    if (offset < 0)
        return false;
    slice->date = offset;
    slice->days = count;
    return true;
}

void columns_forget_volumes(columns *columns) {
    free(columns->volume);
    free(columns->whole_volume);
    columns->volume = NULL;
    columns->whole_volume = NULL;
    columns->volume_rows = columns->volume_capacity = 0;
    columns->whole_rows = columns->whole_capacity = 0;
}

void columns_free(columns *columns) {
    columns_forget_volumes(columns);
    free(columns->adj_close);
    free(columns->dates);
    *columns = (struct columns){0};
}
