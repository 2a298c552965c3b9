#include "report/report_figures.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/figure_data.h"
#include "report/svg.h"

typedef struct legend {
    const char *class, *label;
} legend;

static void open_figure(text *out, const char *title) {
    text_printf(out, "<figure><h3>%s</h3>\n", title);
}

static void close_figure(text *out, const legend *items, int count, const char *shows) {
    text_append_string(out, "<figcaption>");
    for (int i = 0; i < count; i++) {
        text_printf(out, "<span class=\"key\"><i class=\"%s\"></i>%s</span> ", items[i].class,
                    items[i].label);
    }
    text_printf(out, "<p>%s</p></figcaption></figure>\n", shows);
}

/* How many forecasts fell where, darker where there are more. */
static void draw_density(svg_chart *chart, const density *cells) {
    enum { SHADES = 8 };
    double width = (chart->x.high - chart->x.low) / DENSITY_COLUMNS;
    double height = (chart->y.high - chart->y.low) / DENSITY_ROWS;
    for (int shade = 1; shade <= SHADES; shade++) {
        svg_boxes_begin(chart, "fill-a", (double)shade / SHADES * 0.9);
        for (int i = 0; i < DENSITY_COLUMNS * DENSITY_ROWS; i++) {
            double share = sqrt((double)cells->count[i] / (double)cells->most);
            if (cells->count[i] > 0 && (int)ceil(share * SHADES) == shade) {
                double x = chart->x.low + width * (i % DENSITY_COLUMNS);
                double y = chart->y.low + height * (i / DENSITY_COLUMNS);
                svg_box(chart, x, y, x + width, y + height);
            }
        }
        svg_boxes_end(chart);
    }
}

static void predicted_against_actual(text *out, const report *r, const figure_data *data) {
    const density *cells = &data->density;
    open_figure(out, "Predicted against actual");
    svg_chart chart =
        svg_open(out, "Density of predicted and actual next-day returns",
                 (svg_axis){"predicted return", SVG_PERCENT, cells->x_low, cells->x_high},
                 (svg_axis){"actual return", SVG_PERCENT, cells->y_low, cells->y_high});
    draw_density(&chart, cells);
    svg_segment(&chart, "stroke-b dashed", cells->x_low, cells->x_low, cells->x_high,
                cells->x_high);
    for (int i = 0; i < GROUPS; i++) {
        svg_dot(&chart, "fill-b", data->groups.forecast[i], data->groups.actual[i]);
    }
    svg_close(&chart);
    char shows[256];
    snprintf(
        shows, sizeof shows,
        "%lld test windows; the outer 0.5%% of the forecasts and 1%% of the returns lie on the "
        "edges. The two axes have different scales.",
        (long long)r->panel.rows);
    close_figure(out,
                 (legend[]){{"fill-a", "test windows"},
                            {"fill-b", "mean of each tenth"},
                            {"stroke-b dashed", "a perfect forecast"}},
                 3, shows);
}

static void calibration(text *out, const figure_data *data) {
    const groups *g = &data->groups;
    double low = DBL_MAX, high = -DBL_MAX, x_low = DBL_MAX, x_high = -DBL_MAX;
    svg_extend(&x_low, &x_high, g->forecast, GROUPS);
    for (int i = 0; i < GROUPS; i++) {
        double ends[2] = {g->actual[i] - 2 * g->error[i], g->actual[i] + 2 * g->error[i]};
        svg_extend(&low, &high, ends, 2);
    }
    open_figure(out, "Calibration of the forecast");
    svg_chart chart = svg_open(
        out, "Mean actual return of each tenth of the forecasts",
        (svg_axis){"mean predicted return", SVG_PERCENT, x_low, x_high},
        (svg_axis){"mean actual return", SVG_PERCENT, fmin(low, x_low), fmax(high, x_high)});
    svg_segment(&chart, "stroke-c", x_low, 0, x_high, 0);
    svg_segment(&chart, "stroke-b dashed", x_low, x_low, x_high, x_high);
    for (int i = 0; i < GROUPS; i++) {
        if (isnan(g->forecast[i])) {
            continue;
        }
        svg_segment(&chart, "stroke-a", g->forecast[i], g->actual[i] - 2 * g->error[i],
                    g->forecast[i], g->actual[i] + 2 * g->error[i]);
        svg_dot(&chart, "fill-a", g->forecast[i], g->actual[i]);
    }
    svg_close(&chart);
    close_figure(out,
                 (legend[]){{"fill-a", "tenths of the forecasts, +- 2 standard errors (by day)"},
                            {"stroke-b dashed", "a perfect forecast"}},
                 2, "A forecast with skill climbs along the dashed line.");
}

static svg_axis date_axis(const figure_data *data) {
    return (svg_axis){"day", SVG_DATE, data->date[0], data->date[data->days - 1]};
}

/* The first model's, as text. */
static const char *model_value(char text[STATISTIC_TEXT], const report *r, statistic which) {
    statistic_format(text, which, r->model_statistics[0].value[which]);
    return text;
}

static void daily_ic(text *out, const report *r, const figure_data *data) {
    double low = DBL_MAX, high = -DBL_MAX;
    svg_extend(&low, &high, r->daily.ic, data->days);
    open_figure(out, "Daily information coefficient");
    svg_chart chart = svg_open(out, "Daily IC and its running mean", date_axis(data),
                               (svg_axis){"correlation", SVG_NUMBER, low, high});
    double half = (chart.x.high - chart.x.low) / (double)data->days / 3;
    svg_boxes_begin(&chart, "fill-a", 0.35);
    for (int64_t day = 0; day < data->days; day++) {
        if (!isnan(r->daily.ic[day])) {
            double ic = r->daily.ic[day];
            svg_box(&chart, data->date[day] - half, ic < 0 ? ic : 0, data->date[day] + half,
                    ic < 0 ? 0 : ic);
        }
    }
    svg_boxes_end(&chart);
    svg_segment(&chart, "stroke-c", chart.x.low, 0, chart.x.high, 0);
    svg_line(&chart, "stroke-b", data->date, data->running_ic, data->days);
    svg_close(&chart);
    char shows[160], mean[STATISTIC_TEXT], t[STATISTIC_TEXT];
    snprintf(shows, sizeof shows, "Mean %s, t %s (Newey-West, 5 lags).",
             model_value(mean, r, STATISTIC_IC), model_value(t, r, STATISTIC_IC_T));
    close_figure(out, (legend[]){{"fill-a", "each day"}, {"stroke-b", "running mean of 60 days"}},
                 2, shows);
}

static void interval_coverage(text *out, const report *r, const figure_data *data) {
    open_figure(out, "Coverage of the prediction intervals");
    if (!r->metadata->calibrated) {
        close_figure(out, NULL, 0, "The checkpoint has no prediction intervals.");
        return;
    }
    double low = 0.7, high = 1;
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        svg_extend(&low, &high, data->running_coverage[level], data->days);
    }
    svg_chart chart = svg_open(out, "Share of returns inside the prediction intervals",
                               date_axis(data), (svg_axis){"inside", SVG_PERCENT, low, high});
    static const char *const class[] = {"stroke-a", "stroke-b"};
    static const char *const promised[] = {"stroke-a dashed", "stroke-b dashed"};
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        double at = conformal_level[level];
        svg_segment(&chart, promised[level], chart.x.low, at, chart.x.high, at);
        svg_line(&chart, class[level], data -> date, data -> running_coverage[level], data -> days);
    }
    svg_close(&chart);
    char shows[160];
    snprintf(shows, sizeof shows,
             "Over the whole test period %.1f%% (80%% promised) and %.1f%% (95%% promised).",
             100 * r->coverage.share[0], 100 * r->coverage.share[1]);
    close_figure(out,
                 (legend[]){{"stroke-a", "80% interval, running mean of 60 days"},
                            {"stroke-b", "95% interval"},
                            {"stroke-c dashed", "promised"}},
                 3, shows);
}

static void three_curves(text *out, const figure_data *data, const char *title,
                         const char *description, svg_axis y, double *const curves[3],
                         double rule) {
    static const char *const class[] = {"stroke-c", "stroke-b", "stroke-a"};
    y.low = y.high = rule;
    for (int i = 0; i < 3; i++) {
        svg_extend(&y.low, &y.high, curves[i], data->days);
    }
    open_figure(out, title);
    svg_chart chart = svg_open(out, description, date_axis(data), y);
    svg_segment(&chart, "stroke-c thin", chart.x.low, rule, chart.x.high, rule);
    for (int i = 0; i < 3; i++) {
        svg_line(&chart, class[i], data -> date, curves[i], data -> days);
    }
    svg_close(&chart);
}

static const legend curve_legend[] = {{"stroke-a", "long-short, net of 5 bp"},
                                      {"stroke-b", "long-short, gross"},
                                      {"stroke-c", "equal weight of all stocks"}};

static void equity(text *out, const report *r, const figure_data *data) {
    three_curves(out, data, "Growth of 1", "Compounded long-short and equal-weight returns",
                 (svg_axis){"value", SVG_NUMBER, 0, 0}, data->equity, 1);
    char shows[200], gross[STATISTIC_TEXT], net[STATISTIC_TEXT], turnover[STATISTIC_TEXT];
    snprintf(shows, sizeof shows,
             "Ten highest against ten lowest forecasts, traded a day later. Sharpe ratio %s gross, "
             "%s net; turnover %s a day.",
             model_value(gross, r, STATISTIC_SHARPE_GROSS),
             model_value(net, r, STATISTIC_SHARPE_NET),
             model_value(turnover, r, STATISTIC_TURNOVER));
    close_figure(out, curve_legend, 3, shows);
}

static void drawdown(text *out, const report *r, const figure_data *data) {
    three_curves(out, data, "Drawdown", "Fall of the curves below their peaks",
                 (svg_axis){"below the peak", SVG_PERCENT, 0, 0}, data->drawdown, 0);
    char shows[120], gross[STATISTIC_TEXT], net[STATISTIC_TEXT];
    snprintf(shows, sizeof shows, "The long-short curves fell by at most %s gross and %s net.",
             model_value(gross, r, STATISTIC_DRAWDOWN_GROSS),
             model_value(net, r, STATISTIC_DRAWDOWN_NET));
    close_figure(out, curve_legend, 3, shows);
}

static void losses(text *out, const figure_data *data) {
    open_figure(out, "Loss while training");
    double low = DBL_MAX, high = -DBL_MAX, epochs = 1;
    bool validation = false;
    for (int i = 0; i < data->loss_curves; i++) {
        svg_extend(&low, &high, data->losses[i].value, data->losses[i].count);
        epochs = fmax(epochs, (double)data->losses[i].count);
    }
    if (low > high) {
        close_figure(out, NULL, 0, "The checkpoint does not say how its training went.");
        return;
    }
    svg_chart chart = svg_open(out, "Mean squared error by epoch",
                               (svg_axis){"epoch", SVG_COUNT, 1, fmax(epochs, 2)},
                               (svg_axis){"change since epoch 1", SVG_PERCENT, low, high});
    svg_segment(&chart, "stroke-c thin", chart.x.low, 0, chart.x.high, 0);
    for (int i = 0; i < data->loss_curves; i++) {
        const loss_curve *curve = &data->losses[i];
        const char *class = curve->validation ? "stroke-b" : "stroke-a";
        svg_line(&chart, class, data->epoch, curve->value, curve->count);
        if (curve->count == 1) {
            svg_dot(&chart, curve->validation ? "fill-b" : "fill-a", 1, curve->value[0]);
        }
        validation = validation || curve->validation;
    }
    svg_close(&chart);
    close_figure(out, (legend[]){{"stroke-a", "training"}, {"stroke-b", "validation"}},
                 validation ? 2 : 1,
                 "Mean squared error, a line a seed. Training lines end at the epoch whose weights "
                 "were kept.");
}

static void feature_distributions(text *out, const figure_data *data) {
    static const char *const names[DATASET_FEATURES] = {
        "ret5: return of 5 days", "vol20: volatility of 20 days", "rsi14: relative strength",
        "volz20: volume against 20 days"};
    double x[HISTOGRAM_BINS];
    for (int bin = 0; bin < HISTOGRAM_BINS; bin++) {
        x[bin] = -HISTOGRAM_LIMIT + (bin + 0.5) * 2 * HISTOGRAM_LIMIT / HISTOGRAM_BINS;
    }
    for (int f = 0; f < DATASET_FEATURES; f++) {
        double low = 0, high = 0;
        svg_extend(&low, &high, data->histogram[0][f], HISTOGRAM_BINS);
        svg_extend(&low, &high, data->histogram[1][f], HISTOGRAM_BINS);
        char title[80];
        snprintf(title, sizeof title, "Feature %s", names[f]);
        open_figure(out, title);
        svg_chart chart = svg_open(out, title,
                                   (svg_axis){"standard deviations of the training rows",
                                              SVG_NUMBER, -HISTOGRAM_LIMIT, HISTOGRAM_LIMIT},
                                   (svg_axis){"share of rows", SVG_PERCENT, low, high});
        svg_line(&chart, "stroke-c", x, data->histogram[0][f], HISTOGRAM_BINS);
        svg_line(&chart, "stroke-a", x, data->histogram[1][f], HISTOGRAM_BINS);
        svg_close(&chart);
        close_figure(out, (legend[]){{"stroke-c", "training"}, {"stroke-a", "test"}}, 2, "");
    }
}

bool report_figures(text *out, const report *report, error *error) {
    figure_data data;
    if (!figure_data_gather(&data, report, error)) {
        return false;
    }
    predicted_against_actual(out, report, &data);
    daily_ic(out, report, &data);
    calibration(out, &data);
    interval_coverage(out, report, &data);
    equity(out, report, &data);
    drawdown(out, report, &data);
    losses(out, &data);
    feature_distributions(out, &data);
    figure_data_free(&data);
    return true;
}
