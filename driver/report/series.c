#include "report/series.h"

#include <math.h>
#include <stdlib.h>

void moments_add(moments *m, double value) {
    if (!isnan(value)) {
        double delta = value - m->mean;
        m->count++;
        m->mean += delta / (double)m->count;
        m->squares += delta * (value - m->mean);
    }
}

double moments_mean(const moments *m) {
    return m->count > 0 ? m->mean : NAN;
}

double moments_deviation(const moments *m) {
    return m->count > 1 ? sqrt(m->squares / (double)(m->count - 1)) : NAN;
}

double moments_ratio(const moments *m) {
    double deviation = moments_deviation(m);
    return deviation > 0 ? moments_mean(m) / deviation : NAN;
}

double series_mean(const double *values, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += values[i];
    }
    return count > 0 ? sum / (double)count : NAN;
}

static void swap(double *a, double *b) {
    double value = *a;
    *a = *b;
    *b = value;
}

/* Hoare's selection with the middle of three as pivot. */
double series_select(double *values, int64_t count, int64_t rank) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (values[middle] < values[low]) {
            swap(&values[middle], &values[low]);
        }
        if (values[high] < values[low]) {
            swap(&values[high], &values[low]);
        }
        if (values[high] < values[middle]) {
            swap(&values[high], &values[middle]);
        }
        double pivot = values[middle];
        int64_t left = low, right = high;
        while (left <= right) {
            for (; values[left] < pivot; left++) {
            }
            for (; values[right] > pivot; right--) {
            }
            if (left <= right) {
                swap(&values[left++], &values[right--]);
            }
        }
        if (rank <= right) {
            high = right;
        } else if (rank >= left) {
            low = left;
        } else {
            break; /* between the two all equal the pivot */
        }
    }
    return values[rank];
}

double series_quantile(double *values, int64_t count, double probability) {
    if (count == 0) {
        return NAN;
    }
    double position = probability * (double)(count - 1);
    int64_t below = (int64_t)position;
    double low = series_select(values, count, below), high = low;
    for (int64_t i = below + 1; i < count; i++) { /* the next one is the least of those above */
        high = i == below + 1 || values[i] < high ? values[i] : high;
    }
    return low + (position - (double)below) * (high - low);
}

double series_newey_west_t(const double *values, int64_t count, int lags) {
    double *known = malloc((size_t)(count + 1) * sizeof *known);
    if (!known) {
        return NAN;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isnan(values[i])) {
            known[n++] = values[i];
        }
    }
    double mean = series_mean(known, n), variance = 0;
    for (int lag = 0; lag <= lags; lag++) {
        double covariance = 0;
        for (int64_t t = lag; t < n; t++) {
            covariance += (known[t] - mean) * (known[t - lag] - mean);
        }
        double weight = lag == 0 ? 1 : 2 * (1 - lag / (lags + 1.0));
        variance += weight * covariance / (double)n;
    }
    free(known);
    return n > 1 && variance > 0 ? mean / sqrt(variance / (double)n) : NAN;
}

double series_drawdown(const double *returns, int64_t count) {
    double value = 1, peak = 1, worst = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isnan(returns[i])) {
            value *= 1 + returns[i];
            peak = value > peak ? value : peak;
            double fall = 1 - value / peak;
            worst = fall > worst ? fall : worst;
        }
    }
    return worst;
}
