#include "report/figure_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/rank.h"
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

static bool gather_density(density *out, const panel *panel, const double *forecast) {
    double *sorted = malloc((size_t)panel->rows * sizeof *sorted);
    if (!sorted) {
        return false;
    }
    memcpy(sorted, forecast, (size_t)panel->rows * sizeof *sorted);
    out->x_low = series_quantile(sorted, panel->rows, 0.005);
    out->x_high = series_quantile(sorted, panel->rows, 0.995);
    memcpy(sorted, panel->actual, (size_t)panel->rows * sizeof *sorted);
    out->y_low = series_quantile(sorted, panel->rows, 0.01);
    out->y_high = series_quantile(sorted, panel->rows, 0.99);
    free(sorted);
    for (int64_t i = 0; i < panel->rows; i++) {
        int x = cell(forecast[i], out->x_low, out->x_high, DENSITY_COLUMNS);
        int y = cell(panel->actual[i], out->y_low, out->y_high, DENSITY_ROWS);
        int64_t count = ++out->count[y * DENSITY_COLUMNS + x];
        out->most = count > out->most ? count : out->most;
    }
    return true;
}

/* Standard error of a group's mean with days as clusters. group [N]: each row's group. */
static double group_error(const panel *panel, const int8_t *group, int which, double mean,
                          double rows) {
    double sum = 0;
    for (int64_t day = 0; day < panel->days; day++) {
        double residual = 0;
        for (int64_t i = panel->day_first[day]; i < panel->day_first[day + 1]; i++) {
            residual += group[i] == which ? panel->actual[i] - mean : 0;
        }
        sum += residual * residual;
    }
    return sqrt(sum) / rows;
}

static bool gather_groups(groups *out, const panel *panel, const double *forecast) {
    ranked *order = malloc((size_t)panel->rows * sizeof *order);
    int8_t *group = malloc((size_t)panel->rows * sizeof *group);
    bool ok = order && group;
    if (ok) {
        rank_sort(order, forecast, panel->rows);
        out->count = panel->rows < GROUPS ? (int)panel->rows : GROUPS;
        for (int g = 0; g < out->count; g++) {
            int64_t first = panel->rows * g / out->count, end = panel->rows * (g + 1) / out->count;
            double rows = (double)(end - first);
            for (int64_t i = first; i < end; i++) {
                group[order[i].index] = (int8_t)g;
                out->forecast[g] += order[i].value / rows;
                out->actual[g] += panel->actual[order[i].index] / rows;
            }
        }
        for (int g = 0; g < out->count; g++) {
            double rows =
                (double)(panel->rows * (g + 1) / out->count - panel->rows * g / out->count);
            out->error[g] = group_error(panel, group, g, out->actual[g], rows);
        }
    }
    free(order);
    free(group);
    return ok;
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
            curve->value[curve->count++] = value / LOSS_UNIT;
        }
        list = end != list ? end : list + 1;
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
    if (!gather_columns(out, r) ||
        !gather_density(&out->density, &r->panel, r->models[0].forecast) ||
        !gather_groups(&out->groups, &r->panel, r->models[0].forecast)) {
        figure_data_free(out);
        return error_set(error, "out of memory for the figures of the report");
    }
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
