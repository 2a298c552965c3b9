#include "report/daily.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/portfolio.h"
#include "report/series.h"

enum { COLUMNS = 15, NEWEY_WEST_LAGS = 5, TRADING_DAYS = 252 };

static bool varies(const double *values, int64_t count) {
    for (int64_t i = 1; i < count; i++) {
        if (values[i] != values[0]) {
            return true;
        }
    }
    return false;
}

/* Pearson correlation of x and y [count]; NaN when one of them is constant. */
static double correlation(const double *x, const double *y, int64_t count) {
    if (!varies(x, count) || !varies(y, count)) {
        return NAN;
    }
    double mean_x = series_mean(x, count), mean_y = series_mean(y, count);
    double xx = 0, yy = 0, xy = 0;
    for (int64_t i = 0; i < count; i++) {
        double dx = x[i] - mean_x, dy = y[i] - mean_y;
        xx += dx * dx;
        yy += dy * dy;
        xy += dx * dy;
    }
    return xy / sqrt(xx * yy);
}

/* Sums over one day's rows. */
static void measure_errors(daily *out, int64_t day, const double *actual, const double *forecast,
                           int64_t count, double train_mean) {
    out->rows[day] = (double)count;
    for (int64_t i = 0; i < count; i++) {
        double error = actual[i] - forecast[i], about = actual[i] - train_mean;
        out->squared_error[day] += error * error;
        out->absolute_error[day] += fabs(error);
        out->squared_return[day] += actual[i] * actual[i];
        out->squared_about_mean[day] += about * about;
        out->right[day] += (forecast[i] > 0) == (actual[i] > 0);
        out->up[day] += actual[i] > 0;
    }
    out->gain_zero[day] = out->squared_return[day] - out->squared_error[day];
    out->gain_mean[day] = out->squared_about_mean[day] - out->squared_error[day];
}

static double mean_of_known(const double *values, int64_t count) {
    double sum = 0;
    int64_t known = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(values[i])) {
            sum += values[i];
            known++;
        }
    }
    return known > 0 ? sum / (double)known : NAN;
}

static bool allocate(daily *out, int64_t days, error *error) {
    *out = (daily){.days = days, .constant_zero = true};
    out->columns = calloc((size_t)days * COLUMNS + 1, sizeof *out->columns);
    if (!out->columns) {
        return error_set(error, "out of memory for %lld days of the report", (long long)days);
    }
    double **column[COLUMNS] = {&out->rows,
                                &out->squared_error,
                                &out->absolute_error,
                                &out->squared_return,
                                &out->squared_about_mean,
                                &out->gain_zero,
                                &out->gain_mean,
                                &out->right,
                                &out->up,
                                &out->ic,
                                &out->rank_ic,
                                &out->gross,
                                &out->net,
                                &out->turnover,
                                &out->equal_weight};
    for (int i = 0; i < COLUMNS; i++) {
        *column[i] = out->columns + i * days;
    }
    return true;
}

void daily_free(daily *daily) {
    free(daily->columns);
    memset(daily, 0, sizeof *daily);
}

/* Buffers of one day. */
typedef struct day_buffers {
    double *forecast;
    ranked *order, *scratch;
    float *ranks;
} day_buffers;

static bool allocate_buffers(day_buffers *out, int64_t rows, error *error) {
    size_t n = (size_t)rows + 1;
    *out = (day_buffers){.forecast = malloc(n * sizeof *out->forecast),
                         .order = malloc(n * sizeof *out->order),
                         .scratch = malloc(n * sizeof *out->scratch),
                         .ranks = malloc(n * sizeof *out->ranks)};
    return (out->forecast && out->order && out->scratch && out->ranks) ||
           error_set(error, "out of memory for ranking %lld forecasts", (long long)rows);
}

static void free_buffers(day_buffers *buffers) {
    free(buffers->forecast);
    free(buffers->order);
    free(buffers->scratch);
    free(buffers->ranks);
}

static void measure_day(daily *out, int64_t day, const panel *panel, const day_buffers *buffers,
                        portfolio *held, double train_mean) {
    int64_t first = panel->day_first[day], count = panel->day_first[day + 1] - first;
    const double *forecast = buffers->forecast;
    measure_errors(out, day, panel->actual + first, forecast, count, train_mean);
    for (int64_t i = 0; i < count; i++) {
        out->constant_zero = out->constant_zero && forecast[i] == 0;
    }
    rank_sort(buffers->order, buffers->scratch, forecast, count);
    rank_assign(buffers->ranks, buffers->order, count);
    out->ic[day] = correlation(forecast, panel->actual + first, count);
    out->rank_ic[day] = rank_correlation(buffers->ranks, panel->actual_rank + first, count);
    portfolio_day traded = portfolio_rebalance(held, buffers->order, panel->ticker + first,
                                               panel->tradeable + first, count);
    out->gross[day] = traded.gross;
    out->turnover[day] = traded.turnover;
    out->net[day] = traded.gross - PORTFOLIO_COST * traded.turnover;
    out->equal_weight[day] = mean_of_known(panel->tradeable + first, count);
}

bool daily_measure(daily *out, const panel *panel, forecast_rows forecast, const void *context,
                   double train_mean, error *error) {
    day_buffers buffers;
    bool ok = allocate_buffers(&buffers, panel_widest_day(panel), error) &&
              allocate(out, panel->days, error);
    portfolio held = {.count = 0};
    for (int64_t day = 0; ok && day < panel->days; day++) {
        int64_t first = panel->day_first[day];
        forecast(buffers.forecast, context, first, panel->day_first[day + 1] - first);
        measure_day(out, day, panel, &buffers, &held, train_mean);
    }
    free_buffers(&buffers);
    return ok;
}

/* Sum of a column over the listed days. */
static double total(const double *column, const int32_t *day_index, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += column[day_index ? day_index[i] : i];
    }
    return sum;
}

/* Mean and sample standard deviation of a column over the listed days where it is known. */
static moments column_moments(const double *column, const int32_t *day_index, int64_t count) {
    moments m = {0};
    for (int64_t i = 0; i < count; i++) {
        moments_add(&m, column[day_index ? day_index[i] : i]);
    }
    return m;
}

/* Days are the clusters: sqrt(G/(G-1) sum_day (sum of the day's residuals)^2) / rows. */
static double direction_error(const daily *d, double share, double rows) {
    double sum = 0;
    for (int64_t day = 0; day < d->days; day++) {
        double residual = d->right[day] - share * d->rows[day];
        sum += residual * residual;
    }
    double clusters = (double)d->days;
    return clusters > 1 ? sqrt(sum * clusters / (clusters - 1)) / rows : NAN;
}

static double newey_west(const daily *d, const double *column) {
    return series_newey_west_t(column, d->days, NEWEY_WEST_LAGS);
}

/* 1 - error / total; where nothing moves there is nothing to explain. */
static double explained(double error, double total) {
    return total > 0 ? 1 - error / total : NAN;
}

void daily_summarise(statistics *out, const daily *d, const int32_t *day_index, int64_t count) {
    double *v = out->value;
    double rows = total(d->rows, day_index, count);
    double squared_error = total(d->squared_error, day_index, count);
    v[STATISTIC_MSE] = squared_error / rows;
    v[STATISTIC_MAE] = total(d->absolute_error, day_index, count) / rows;
    double squared_return = total(d->squared_return, day_index, count);
    v[STATISTIC_R2_ZERO] = explained(squared_error, squared_return);
    v[STATISTIC_R2_TRAIN_MEAN] =
        explained(squared_error, total(d->squared_about_mean, day_index, count));
    double share = total(d->right, day_index, count) / rows;
    bool directed = !d->constant_zero && squared_return > 0;
    v[STATISTIC_DIRECTION] = directed ? share : NAN;
    v[STATISTIC_BASE_RATE] = total(d->up, day_index, count) / rows;

    moments ic = column_moments(d->ic, day_index, count);
    moments rank_ic = column_moments(d->rank_ic, day_index, count);
    moments gross = column_moments(d->gross, day_index, count);
    moments net = column_moments(d->net, day_index, count);
    v[STATISTIC_IC] = moments_mean(&ic);
    v[STATISTIC_ICIR] = moments_ratio(&ic);
    v[STATISTIC_RANK_IC] = moments_mean(&rank_ic);
    v[STATISTIC_RANK_ICIR] = moments_ratio(&rank_ic);
    moments turnover = column_moments(d->turnover, day_index, count);
    bool trades = moments_mean(&turnover) > 0;
    v[STATISTIC_RETURN_GROSS] = trades ? moments_mean(&gross) : NAN;
    v[STATISTIC_RETURN_NET] = trades ? moments_mean(&net) : NAN;
    v[STATISTIC_SHARPE_GROSS] = moments_ratio(&gross) * sqrt(TRADING_DAYS);
    v[STATISTIC_SHARPE_NET] = moments_ratio(&net) * sqrt(TRADING_DAYS);
    v[STATISTIC_TURNOVER] = moments_mean(&turnover);

    bool whole = day_index == NULL;
    v[STATISTIC_DIRECTION_SE] = whole && directed ? direction_error(d, share, rows) : NAN;
    v[STATISTIC_IC_T] = whole ? newey_west(d, d->ic) : NAN;
    v[STATISTIC_RANK_IC_T] = whole ? newey_west(d, d->rank_ic) : NAN;
    v[STATISTIC_R2_ZERO_T] = whole ? newey_west(d, d->gain_zero) : NAN;
    v[STATISTIC_R2_TRAIN_MEAN_T] = whole ? newey_west(d, d->gain_mean) : NAN;
    v[STATISTIC_DRAWDOWN_GROSS] = whole && trades ? series_drawdown(d->gross, d->days) : NAN;
    v[STATISTIC_DRAWDOWN_NET] = whole && trades ? series_drawdown(d->net, d->days) : NAN;
}
