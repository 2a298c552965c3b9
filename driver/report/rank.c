#include "report/rank.h"

#include <math.h>
#include <string.h>

enum { DIGIT_BITS = 8, DIGITS = 64 / DIGIT_BITS, DIGIT_VALUES = 1 << DIGIT_BITS };

/* A whole number that is ordered as the doubles are; the two zeros are equal. */
static uint64_t key_of(double value) {
    const double one_zero = value + 0.0;
    uint64_t bits;
    memcpy(&bits, &one_zero, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static int digit_of(uint64_t key, int digit) {
    return (int)(key >> (digit * DIGIT_BITS) & (DIGIT_VALUES - 1));
}

/* Sorts by one digit, keeping the order of equal ones; counts [DIGIT_VALUES]: how many there are of
 * each value. */
static void sort_by_digit(ranked *to, const ranked *from, int64_t count, int digit,
                          const int64_t *counts) {
    int64_t next[DIGIT_VALUES], before = 0;
    for (int value = 0; value < DIGIT_VALUES; value++) {
        next[value] = before;
        before += counts[value];
    }
    for (int64_t i = 0; i < count; i++) {
        to[next[digit_of(key_of(from[i].value), digit)]++] = from[i];
    }
}

/* Radix sort, least significant digit first; a digit that all share is skipped. */
void rank_sort(ranked *order, ranked *scratch, const double *values, int64_t count) {
    int64_t counts[DIGITS][DIGIT_VALUES] = {{0}};
    for (int64_t i = 0; i < count; i++) {
        const uint64_t key = key_of(values[i]);
        order[i] = (ranked){values[i], (int32_t)i};
        for (int digit = 0; digit < DIGITS; digit++) {
            counts[digit][digit_of(key, digit)]++;
        }
    }
    ranked *from = order, *to = scratch;
    for (int digit = 0; digit < DIGITS && count > 0; digit++) {
        if (counts[digit][digit_of(key_of(values[0]), digit)] < count) {
            sort_by_digit(to, from, count, digit, counts[digit]);
            ranked *sorted = to;
            to = from;
            from = sorted;
        }
    }
    if (from != order) {
        memcpy(order, scratch, (size_t)count * sizeof *order);
    }
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

double rank_correlation(const float *x, const float *y, int64_t count) {
    double middle = (double)(count + 1) / 2, xx = 0, yy = 0, xy = 0; /* ranks have this mean */
    for (int64_t i = 0; i < count; i++) {
        double dx = x[i] - middle, dy = y[i] - middle;
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}
