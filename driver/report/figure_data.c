#include "report/figure_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/series.h"

enum { COLUMNS = 2 + CONFORMAL_LEVELS + 6 };

/* Mean of the known values among the last 60; NaN before there are 20 of them. */
static void running_mean(double *out, const double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        moments m = {0};
        for (int64_t k = i; k >= 0 && k > i - RUNNING_DAYS; k--) {
            moments_add(&m, values[k]);
        }
        out[i] = m.count >= RUNNING_DAYS / 3 ? m.mean : NAN;
    }
}

static void compound(double *equity, double *drawdown, const double *returns, int64_t days) {
    double value = 1, peak = 1;
    for (int64_t day = 0; day < days; day++) {
        bool known = !isnan(returns[day]);
        value *= known ? 1 + returns[day] : 1;
        peak = value > peak ? value : peak;
        equity[day] = known ? value : NAN;
        drawdown[day] = known ? value / peak - 1 : NAN;
    }
}

static int cell(double value, double low, double high, int cells) {
    double share = high > low ? (value - low) / (high - low) : 0.5;
    int index = (int)(share * cells);
    return share < 0 ? 0 : index >= cells ? cells - 1 : index;
}

/* scratch [N]: left with the forecasts, in another order. */
static void gather_density(density *out, const panel *panel, const double *forecast,
                           double *scratch) {
    size_t size = (size_t)panel->rows * sizeof *scratch;
    memcpy(scratch, panel->actual, size);
    out->y_low = series_quantile(scratch, panel->rows, 0.01);
    out->y_high = series_quantile(scratch, panel->rows, 0.99);
    memcpy(scratch, forecast, size);
    out->x_low = series_quantile(scratch, panel->rows, 0.005);
    out->x_high = series_quantile(scratch, panel->rows, 0.995);
    for (int64_t i = 0; i < panel->rows; i++) {
        int x = cell(forecast[i], out->x_low, out->x_high, DENSITY_COLUMNS);
        int y = cell(panel->actual[i], out->y_low, out->y_high, DENSITY_ROWS);
        int64_t count = ++out->count[y * DENSITY_COLUMNS + x];
        out->most = count > out->most ? count : out->most;
    }
}

/* Groups by size of the forecast. cut [GROUPS - 1]: the group of a forecast is the number of cuts
 * that are not above it, so that equal forecasts are in one group. */
static int group_of(double forecast, const double *cut) {
    int group = 0;
    while (group < GROUPS - 1 && forecast >= cut[group]) {
        group++;
    }
    return group;
}

/* Standard errors of the groups' mean returns, with days as clusters. */
static void measure_group_errors(groups *out, const panel *panel, const double *forecast,
                                 const double *cut, const double *rows) {
    double squares[GROUPS] = {0};
    for (int64_t day = 0; day < panel->days; day++) {
        double residual[GROUPS] = {0};
        for (int64_t i = panel->day_first[day]; i < panel->day_first[day + 1]; i++) {
            int group = group_of(forecast[i], cut);
            residual[group] += panel->actual[i] - out->actual[group];
        }
        for (int group = 0; group < GROUPS; group++) {
            squares[group] += residual[group] * residual[group];
        }
    }
    for (int group = 0; group < GROUPS; group++) {
        out->error[group] = rows[group] > 0 ? sqrt(squares[group]) / rows[group] : NAN;
    }
}

/* scratch [N]: the forecasts in any order. */
static void gather_groups(groups *out, const panel *panel, const double *forecast,
                          double *scratch) {
    double cut[GROUPS - 1], rows[GROUPS] = {0};
    for (int group = 0; group < GROUPS - 1; group++) {
        cut[group] = series_select(scratch, panel->rows, panel->rows * (group + 1) / GROUPS);
    }
    for (int64_t i = 0; i < panel->rows; i++) {
        int group = group_of(forecast[i], cut);
        rows[group]++;
        out->forecast[group] += forecast[i];
        out->actual[group] += panel->actual[i];
    }
    for (int group = 0; group < GROUPS; group++) { /* NaN where equal forecasts left none */
        out->forecast[group] /= rows[group];
        out->actual[group] /= rows[group];
    }
    measure_group_errors(out, panel, forecast, cut, rows);
}

/* Shares of the scaled features of the rows that end windows between two dates. */
static void gather_histogram(double out[DATASET_FEATURES][HISTOGRAM_BINS], const dataset *dataset,
                             window_range range) {
    double rows = 0;
    for (window_run run = {0}; window_run_next(&run, dataset, range);) {
        for (int64_t row = run.first; row <= run.last; row++, rows++) {
            for (int f = 0; f < DATASET_FEATURES; f++) {
                double value = (double)dataset->features[row * DATASET_FEATURES + f];
                out[f][cell(value, -HISTOGRAM_LIMIT, HISTOGRAM_LIMIT, HISTOGRAM_BINS)]++;
            }
        }
    }
    for (int f = 0; f < DATASET_FEATURES; f++) {
        for (int bin = 0; bin < HISTOGRAM_BINS; bin++) {
            out[f][bin] /= rows > 0 ? rows : 1;
        }
    }
}

/* "[1.5e-4,...]" */
static void parse_losses(figure_data *out, const char *list, bool validation) {
    if (!list) {
        return;
    }
    loss_curve *curve = &out->losses[out->loss_curves++];
    *curve = (loss_curve){.validation = validation};
    while (*list && curve->count < LOSS_EPOCHS) {
        char *end;
        double value = strtod(list, &end);
        if (end != list) {
            curve->value[curve->count++] = value;
        }
        list = end != list ? end : list + 1;
    }
    const double first = curve->value[0];
    for (int64_t i = 0; i < curve->count; i++) {
        curve->value[i] = curve->value[i] / first - 1;
    }
}

static bool gather_columns(figure_data *out, const report *r) {
    int64_t days = r->panel.days;
    out->days = days;
    out->columns = calloc((size_t)days * COLUMNS + 1, sizeof *out->columns);
    out->losses = calloc(LOSS_CURVES, sizeof *out->losses);
    if (!out->columns || !out->losses) {
        return false;
    }
    double *next = out->columns;
    double **column[COLUMNS] = {
        &out->date,        &out->running_ic, &out->running_coverage[0], &out->running_coverage[1],
        &out->equity[0],   &out->equity[1],  &out->equity[2],           &out->drawdown[0],
        &out->drawdown[1], &out->drawdown[2]};
    for (int i = 0; i < COLUMNS; i++, next += days) {
        *column[i] = next;
    }
    for (int64_t day = 0; day < days; day++) {
        out->date[day] = r->panel.day_date[day];
    }
    running_mean(out->running_ic, r->daily.ic, days);
    for (int level = 0; r->metadata->calibrated && level < CONFORMAL_LEVELS; level++) {
        running_mean(out->running_coverage[level], r->coverage.daily[level], days);
    }
    const double *returns[3] = {r->daily.equal_weight, r->daily.gross, r->daily.net};
    for (int i = 0; i < 3; i++) {
        compound(out->equity[i], out->drawdown[i], returns[i], days);
    }
    return true;
}

bool figure_data_gather(figure_data *out, const report *r, error *error) {
    memset(out, 0, sizeof *out);
    double *scratch = malloc((size_t)r->panel.rows * sizeof *scratch);
    if (!scratch || !gather_columns(out, r)) {
        free(scratch);
        figure_data_free(out);
        return error_set(error, "out of memory for the figures of the report");
    }
    gather_density(&out->density, &r->panel, r->models[0].forecast, scratch);
    gather_groups(&out->groups, &r->panel, r->models[0].forecast, scratch);
    free(scratch);
    gather_histogram(out->histogram[0], r->dataset, window_range_train(r->metadata));
    gather_histogram(out->histogram[1], r->dataset, window_range_test(r->metadata));
    for (int epoch = 0; epoch < LOSS_EPOCHS; epoch++) {
        out->epoch[epoch] = epoch + 1;
    }
    for (int32_t i = 0; i < r->model_count; i++) {
        parse_losses(out, r->models[i].losses, false);
        parse_losses(out, r->models[i].validation_losses, true);
    }
    return true;
}

void figure_data_free(figure_data *data) {
    free(data->columns);
    free(data->losses);
    memset(data, 0, sizeof *data);
}
