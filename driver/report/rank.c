#include "report/rank.h"

#include <stdlib.h>

static int compare(const void *left, const void *right) {
    const ranked *a = left, *b = right;
    if (a->value != b->value) {
        return a->value < b->value ? -1 : 1;
    }
    return (a->index > b->index) - (a->index < b->index);
}

void rank_sort(ranked *order, const double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        order[i] = (ranked){values[i], (int32_t)i};
    }
    qsort(order, (size_t)count, sizeof *order, compare);
}

void rank_assign(float *ranks, const ranked *order, int64_t count) {
    for (int64_t first = 0; first < count;) {
        int64_t end = first + 1;
        while (end < count && order[end].value == order[first].value) {
            end++;
        }
        float shared = (float)(first + 1 + end) / 2; /* mean of first+1 .. end */
        for (; first < end; first++) {
            ranks[order[first].index] = shared;
        }
    }
}
