#include "report/ridge.h"

#include <math.h>
#include <stdlib.h>

#include "base/parallel.h"

/* Tickers are summed in parts, and the parts in order: the result does not depend on how many cores
 * there are. */
enum { F = DATASET_FEATURES, TICKERS_A_PART = 64 };

/* Sums over windows; inputs are numbered lag * F + feature, P = lags * F of them. */
typedef struct sums {
    int64_t windows;
    int32_t lags;
    double target;
    double *inputs;       /* [P] sum of x */
    double *input_target; /* [P] sum of x y */
    double *products;     /* [P][P] sum of x x', upper triangle of lag blocks */
    double *lead;         /* [lags][F][F] one run's sums of x(e) x(e-j)' */
} sums;

/* block [F][F] += sign x y' */
static inline void add_product(double *restrict block, const float *x, const float *y,
                               double sign) {
    double right[F];
    for (int g = 0; g < F; g++) {
        right[g] = (double)y[g];
    }
    for (int f = 0; f < F; f++) {
        double left = sign * (double)x[f];
        for (int g = 0; g < F; g++) {
            block[f * F + g] += left * right[g];
        }
    }
}

/* Adds every window of a run. Windows overlap: shifting both lags of a product by one is shifting
 * the run by one row, so only products with lag 0 are summed over the rows, and the block of lags
 * (i, i+j) is that of (i-1, i-1+j) plus the row that enters minus the row that leaves. */
static void add_run(sums *s, const dataset *dataset, const window_run *run) {
    const float *x = dataset->features;
    int64_t P = (int64_t)s->lags * F;
    s->windows += run->last - run->first + 1;
    for (int64_t i = 0; i < (int64_t)s->lags * F * F; i++) {
        s->lead[i] = 0;
    }
    for (int64_t row = run->first; row <= run->last; row++) {
        double y = dataset_return(dataset, row);
        s->target += y;
        for (int32_t lag = 0; lag < s->lags; lag++) {
            const float *lagged = x + (row - lag) * F;
            for (int f = 0; f < F; f++) {
                s->inputs[lag * F + f] += (double)lagged[f];
                s->input_target[lag * F + f] += (double)lagged[f] * y;
            }
            add_product(s->lead + (int64_t)lag * F * F, x + row * F, lagged, 1);
        }
    }
    for (int32_t apart = 0; apart < s->lags; apart++) {
        double *block = s->lead + (int64_t)apart * F * F;
        for (int32_t lag = 0; lag + apart < s->lags; lag++) {
            if (lag > 0) {
                int64_t enters = run->first - lag, leaves = run->last - lag + 1;
                add_product(block, x + enters * F, x + (enters - apart) * F, 1);
                add_product(block, x + leaves * F, x + (leaves - apart) * F, -1);
            }
            double *to = s->products + (int64_t)lag * F * P + (int64_t)(lag + apart) * F;
            for (int f = 0; f < F; f++) {
                for (int g = 0; g < F; g++) {
                    to[f * P + g] += block[f * F + g];
                }
            }
        }
    }
}

/* Solves A x = b for symmetric positive definite A [n][n], of which the upper triangle is given.
 * A becomes its Cholesky factor R (A = R'R) and b the solution. */
static bool solve(double *A, double *b, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        double pivot = A[k * n + k];
        for (int64_t i = 0; i < k; i++) {
            pivot -= A[i * n + k] * A[i * n + k];
        }
        if (!(pivot > 0)) {
            return false;
        }
        A[k * n + k] = sqrt(pivot);
        for (int64_t j = k + 1; j < n; j++) {
            double sum = A[k * n + j];
            for (int64_t i = 0; i < k; i++) {
                sum -= A[i * n + k] * A[i * n + j];
            }
            A[k * n + j] = sum / A[k * n + k];
        }
    }
    for (int64_t k = 0; k < n; k++) {
        for (int64_t i = 0; i < k; i++) {
            b[k] -= A[i * n + k] * b[i];
        }
        b[k] /= A[k * n + k];
    }
    for (int64_t k = n - 1; k >= 0; k--) {
        for (int64_t j = k + 1; j < n; j++) {
            b[k] -= A[k * n + j] * b[j];
        }
        b[k] /= A[k * n + k];
    }
    return true;
}

/* Centres the sums, adds the penalty and solves; weights and intercept go to `out`. */
static bool solve_centred(ridge *out, sums *s) {
    int64_t P = (int64_t)s->lags * F;
    double n = (double)s->windows, mean_target = s->target / n;
    for (int64_t i = 0; i < P; i++) {
        for (int64_t j = i; j < P; j++) {
            s->products[i * P + j] -= s->inputs[i] * s->inputs[j] / n;
        }
        s->products[i * P + i] += RIDGE_PENALTY;
        out->weight[i] = s->input_target[i] - s->inputs[i] * mean_target;
    }
    if (!solve(s->products, out->weight, P)) {
        return false;
    }
    out->intercept = mean_target;
    for (int64_t i = 0; i < P; i++) {
        out->intercept -= out->weight[i] * s->inputs[i] / n;
    }
    return true;
}

/* Numbers in the memory of one part's sums. */
static int64_t sums_size(int64_t P) {
    return 2 * P + P * P + P * F;
}

static sums sums_in(double *memory, int32_t lags) {
    int64_t P = (int64_t)lags * F;
    return (sums){.lags = lags,
                  .inputs = memory,
                  .input_target = memory + P,
                  .products = memory + 2 * P,
                  .lead = memory + 2 * P + P * P};
}

typedef struct summing {
    const dataset *dataset;
    window_range train;
    sums *parts; /* [parts] */
} summing;

static void sum_part(int64_t index, void *context) {
    summing *work = context;
    int32_t end = (int32_t)(index + 1) * TICKERS_A_PART;
    window_run run = {.next = end - TICKERS_A_PART};
    while (window_run_next(&run, work->dataset, work->train) && run.ticker < end) {
        add_run(&work->parts[index], work->dataset, &run);
    }
}

static void add_part(sums *all, const sums *part) {
    all->windows += part->windows;
    all->target += part->target;
    int64_t P = (int64_t)all->lags * F;
    for (int64_t i = 0; i < 2 * P + P * P; i++) { /* inputs, input_target, products */
        all->inputs[i] += part->inputs[i];
    }
}

bool ridge_fit(ridge *out, const dataset *dataset, int32_t lags, window_range train, error *error) {
    if (lags < 1 || lags > RIDGE_LAGS || lags > dataset->options.time_steps) {
        return error_set(error, "a ridge regression over %d rows is not possible here", lags);
    }
    int64_t P = (int64_t)lags * F;
    int64_t parts = (dataset->market->count + TICKERS_A_PART - 1) / TICKERS_A_PART;
    double *memory = calloc((size_t)(sums_size(P) * parts), sizeof *memory);
    summing work = {dataset, train, calloc((size_t)parts, sizeof *work.parts)};
    if (!memory || !work.parts) {
        free(memory);
        free(work.parts);
        return error_set(error, "out of memory for a regression on %lld inputs", (long long)P);
    }
    for (int64_t i = 0; i < parts; i++) {
        work.parts[i] = sums_in(memory + i * sums_size(P), lags);
    }
    parallel_for(parts, sum_part, &work);
    sums *all = &work.parts[0];
    for (int64_t i = 1; i < parts; i++) {
        add_part(all, &work.parts[i]);
    }
    out->lags = lags;
    int64_t windows = all->windows;
    bool ok = windows > 0 && solve_centred(out, all);
    free(memory);
    free(work.parts);
    return ok || error_set(error, "the ridge regression on %lld windows has no solution",
                           (long long)windows);
}

double ridge_forecast(const ridge *ridge, const dataset *dataset, int64_t row) {
    double sum = ridge->intercept;
    for (int32_t lag = 0; lag < ridge->lags; lag++) {
        const float *x = dataset->features + (row - lag) * F;
        for (int f = 0; f < F; f++) {
            sum += ridge->weight[lag * F + f] * (double)x[f];
        }
    }
    return sum;
}
