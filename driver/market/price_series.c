#include "market/price_series.h"

#include <stdlib.h>
#include <string.h>

static bool grow(void **array, int32_t capacity, size_t size) {
    void *grown = realloc(*array, (size_t)capacity * size);
    if (grown)
        *array = grown;
    return grown;
}

bool price_series_append(price_series *series, const price_row *row) {
    if (series->days == series->capacity) {
        int32_t capacity = series->capacity ? series->capacity * 2 : 1024;
        if (!grow((void **)&series->dates, capacity, sizeof *series->dates) ||
            !grow((void **)&series->lines, capacity, sizeof *series->lines) ||
            !grow((void **)&series->adj_close, capacity, sizeof *series->adj_close) ||
            !grow((void **)&series->volume, capacity, sizeof *series->volume))
            return false;
        series->capacity = capacity;
    }
    series->dates[series->days] = row->date;
    series->lines[series->days] = row->line;
    series->adj_close[series->days] = row->adj_close;
    series->volume[series->days] = row->volume;
    ++series->days;
    return true;
}

static void swap_rows(price_series *s, int32_t a, int32_t b) {
    price_row row = {s->dates[a], s->lines[a], s->adj_close[a], s->volume[a]};
    s->dates[a] = s->dates[b];
    s->lines[a] = s->lines[b];
    s->adj_close[a] = s->adj_close[b];
    s->volume[a] = s->volume[b];
    s->dates[b] = row.date;
    s->lines[b] = row.line;
    s->adj_close[b] = row.adj_close;
    s->volume[b] = row.volume;
}

bool price_series_orient(price_series *series) {
    int32_t falling = 0;
    for (int32_t day = 1; day < series->days; ++day)
        falling += series->dates[day] < series->dates[day - 1];
    if (2 * falling <= series->days - 1)
        return false;
    for (int32_t a = 0, b = series->days - 1; a < b; ++a, --b)
        swap_rows(series, a, b);
    return true;
}

void price_series_move(price_series *series, int32_t to, int32_t from) {
    series->dates[to] = series->dates[from];
    series->lines[to] = series->lines[from];
    series->adj_close[to] = series->adj_close[from];
    series->volume[to] = series->volume[from];
}

void price_series_free(price_series *series) {
    free(series->dates);
    free(series->lines);
    free(series->adj_close);
    free(series->volume);
    *series = (price_series){.days = 0};
}

int32_t price_file_add(price_file *file, const char *name, int32_t length) {
    if (file->count == file->capacity) {
        int32_t capacity = file->capacity ? file->capacity * 2 : 1;
        if (!grow((void **)&file->series, capacity, sizeof *file->series))
            return -1;
        file->capacity = capacity;
    }
    price_series *series = &file->series[file->count];
    *series = (price_series){.days = 0};
    memcpy(series->name, name, (size_t)length);
    return file->count++;
}

/* FNV-1a */
static uint32_t hash(const char *name, size_t length) {
    uint32_t value = 2166136261u;
    for (size_t i = 0; i < length; ++i)
        value = (value ^ (unsigned char)name[i]) * 16777619u;
    return value;
}

static bool is_named(const price_series *series, const char *name, int32_t length) {
    return strlen(series->name) == (size_t)length &&
           memcmp(series->name, name, (size_t)length) == 0;
}

/* The slot that holds the name, or the free one where it belongs. */
static int32_t *find_slot(const series_index *index, const price_file *file, const char *name,
                          int32_t length) {
    uint32_t mask = (uint32_t)index->capacity - 1;
    for (uint32_t at = hash(name, (size_t)length);; ++at) {
        int32_t *slot = &index->slots[at & mask];
        if (*slot == 0 || is_named(&file->series[*slot - 1], name, length))
            return slot;
    }
}

static bool index_grow(series_index *index, const price_file *file) {
    int32_t *old = index->slots;
    int32_t capacity = index->capacity ? index->capacity * 2 : 64;
    index->slots = calloc((size_t)capacity, sizeof *index->slots);
    if (!index->slots) {
        index->slots = old;
        return false;
    }
    index->capacity = capacity;
    for (int32_t i = 0; i < file->count; ++i) {
        const char *name = file->series[i].name;
        *find_slot(index, file, name, (int32_t)strlen(name)) = i + 1;
    }
    free(old);
    return true;
}

int32_t series_index_find(series_index *index, price_file *file, const char *name, int32_t length) {
    if (index->last < file->count && is_named(&file->series[index->last], name, length))
        return index->last;
    if (file->count * 2 >= index->capacity && !index_grow(index, file))
        return -1;
    int32_t *slot = find_slot(index, file, name, length);
    if (*slot == 0) {
        int32_t added = price_file_add(file, name, length);
        if (added < 0)
            return -1;
        *slot = added + 1;
    }
    return index->last = *slot - 1;
}
