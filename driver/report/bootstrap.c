#include "report/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "report/series.h"

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* floor(count * random / 2^64) for count < 2^32, without a 128-bit product. */
static int32_t next_day(uint64_t *state, int64_t count) {
    uint64_t random = next_random(state), days = (uint64_t)count;
    uint64_t high = (random >> 32) * days, low = (random & 0xFFFFFFFFu) * days;
    return (int32_t)((high + (low >> 32)) >> 32);
}

static void draw_days(int32_t *day_index, int64_t days, uint64_t *state) {
    for (int64_t i = 0; i < days;) {
        int32_t start = next_day(state, days);
        for (int64_t k = 0; k < BOOTSTRAP_BLOCK && i < days; k++) {
            day_index[i++] = (int32_t)((start + k) % days);
        }
    }
}

/* values [count] without its NaN, moved to the front; returns how many are left. */
static int64_t drop_unknown(double *values, int64_t count) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isnan(values[i])) {
            values[kept++] = values[i];
        }
    }
    return kept;
}

bool bootstrap_intervals(intervals *out, const daily *daily, uint64_t seed, error *error) {
    int32_t *day_index = malloc((size_t)(daily->days + 1) * sizeof *day_index);
    double *draws = malloc(sizeof(double[STATISTIC_COUNT][BOOTSTRAP_DRAWS]));
    if (!day_index || !draws) {
        free(day_index);
        free(draws);
        return error_set(error, "out of memory for %d bootstrap draws", BOOTSTRAP_DRAWS);
    }
    for (int draw = 0; draw < BOOTSTRAP_DRAWS; draw++) {
        statistics drawn = {0};
        draw_days(day_index, daily->days, &seed);
        daily_summarise(&drawn, daily, day_index, daily->days);
        for (int s = 0; s < STATISTIC_COUNT; s++) {
            draws[s * BOOTSTRAP_DRAWS + draw] = drawn.value[s];
        }
    }
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        double *values = draws + s * BOOTSTRAP_DRAWS;
        bool resampled = statistic_table[s].resampled && daily->days >= 2 * BOOTSTRAP_BLOCK;
        int64_t known = resampled ? drop_unknown(values, BOOTSTRAP_DRAWS) : 0;
        out->value[s] = (interval){series_quantile(values, known, 0.025),
                                   series_quantile(values, known, 0.975)};
    }
    free(day_index);
    free(draws);
    return true;
}
