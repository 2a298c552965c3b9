#include "report/svg.h"

#include <math.h>
#include <stdio.h>

#include "base/date.h"

/* In units of the view box: small, so that 11-unit letters stay readable on a phone. */
enum { WIDTH = 420, HEIGHT = 270, LEFT = 54, RIGHT = 410, TOP = 10, BOTTOM = 228 };

static double to_x(const svg_chart *chart, double x) {
    double share = (x - chart->x.low) / (chart->x.high - chart->x.low);
    return LEFT + (share < 0 ? 0 : share > 1 ? 1 : share) * (RIGHT - LEFT);
}

static double to_y(const svg_chart *chart, double y) {
    double share = (y - chart->y.low) / (chart->y.high - chart->y.low);
    return BOTTOM - (share < 0 ? 0 : share > 1 ? 1 : share) * (BOTTOM - TOP);
}

void svg_extend(double *low, double *high, const double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(values[i])) {
            *low = values[i] < *low ? values[i] : *low;
            *high = values[i] > *high ? values[i] : *high;
        }
    }
}

/* The smallest of 1, 2, 5, 10, ... times a power of ten that makes at most `ticks` steps. */
static double nice_step(double extent, int ticks) {
    double step = pow(10, floor(log10(extent / ticks)));
    static const double factors[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++) {
        if (extent / (step * factors[i]) <= ticks) {
            return step * factors[i];
        }
    }
    return step * 10;
}

static void tick_label(char *label, size_t size, svg_scale scale, double value, double step) {
    double shown = scale == SVG_PERCENT ? 100 * value : value;
    double unit = scale == SVG_PERCENT ? 100 * step : step;
    int decimals = unit < 1 ? (int)ceil(-log10(unit) - 1e-9) : 0;
    if (fabs(shown) < unit / 1000) {
        shown = 0; /* not "-0" */
    }
    if (unit > 0 && unit < 1e-4) {
        snprintf(label, size, "%.2g", shown);
    } else {
        snprintf(label, size, "%.*f%s", decimals, shown, scale == SVG_PERCENT ? "%" : "");
    }
}

static void x_tick(svg_chart *chart, double x, const char *label) {
    double at = to_x(chart, x);
    text_printf(chart->out,
                "<path class=\"grid\" d=\"M%.1f %dV%d\"/><text x=\"%.1f\" y=\"%d\" "
                "text-anchor=\"middle\">%s</text>\n",
                at, TOP, BOTTOM, at, BOTTOM + 15, label);
}

static void y_tick(svg_chart *chart, double y, const char *label) {
    double at = to_y(chart, y);
    text_printf(chart->out,
                "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" "
                "text-anchor=\"end\">%s</text>\n",
                LEFT, at, RIGHT, LEFT - 5, at + 4, label);
}

static void number_ticks(svg_chart *chart, const svg_axis *axis,
                         void (*draw)(svg_chart *, double, const char *), int ticks) {
    double step = nice_step(axis->high - axis->low, ticks);
    step = axis->scale == SVG_COUNT ? fmax(step, 1) : step;
    double end = axis->high + 1e-9 * step;
    for (double k = ceil(axis->low / step - 1e-9); k * step <= end; k++) {
        char label[32];
        tick_label(label, sizeof label, axis->scale, k * step, step);
        draw(chart, k * step, label);
    }
}

/* Ticks on the first of a month, as many months apart as leaves room for the labels. */
static void date_ticks(svg_chart *chart) {
    static const int choices[] = {1, 2, 3, 6, 12, 24, 60, 120, 240};
    double months = (chart->x.high - chart->x.low) / 30.44;
    int apart = choices[0];
    for (int i = 0; i < 9 && months / apart > 5; i++) {
        apart = choices[i];
    }
    for (int32_t day = (int32_t)ceil(chart->x.low); day <= chart->x.high; day++) {
        char date[DATE_SIZE];
        date_format(date, day);
        int month = (date[5] - '0') * 10 + date[6] - '0', year = 0;
        for (int i = 0; i < 4; i++) {
            year = year * 10 + date[i] - '0';
        }
        if (date[8] == '0' && date[9] == '1' && (year * 12 + month - 1) % apart == 0) {
            date[apart >= 12 ? 4 : 7] = '\0';
            x_tick(chart, day, date);
        }
    }
}

static void widen(svg_axis *axis) {
    if (!(axis->high > axis->low)) {
        double middle = isfinite(axis->low) && isfinite(axis->high) ? axis->low : 0;
        double half = axis->scale == SVG_DATE ? 15 : middle != 0 ? fabs(middle) / 10 : 0.5;
        axis->low = middle - half;
        axis->high = middle + half;
    }
}

svg_chart svg_open(text *out, const char *title, svg_axis x, svg_axis y) {
    svg_chart chart = {out, x, y};
    widen(&chart.x);
    widen(&chart.y);
    text_printf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", WIDTH, HEIGHT,
                title);
    number_ticks(&chart, &chart.y, y_tick, 6);
    if (x.scale == SVG_DATE) {
        date_ticks(&chart);
    } else {
        number_ticks(&chart, &chart.x, x_tick, 5);
    }
    text_printf(
        out,
        "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n"
        "<text transform=\"translate(11 %d) rotate(-90)\" text-anchor=\"middle\">%s</text>\n",
        (LEFT + RIGHT) / 2, HEIGHT - 8, x.label, (TOP + BOTTOM) / 2, y.label);
    return chart;
}

void svg_close(svg_chart *chart) {
    text_append_string(chart->out, "</svg>\n");
}

void svg_line(svg_chart *chart, const char *class, const double *x, const double *y,
              int64_t count) {
    text_printf(chart->out, "<path class=\"line %s\" d=\"", class);
    bool drawing = false;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(y[i])) {
            drawing = false;
        } else {
            text_printf(chart->out, "%c%.1f %.1f", drawing ? 'L' : 'M', to_x(chart, x[i]),
                        to_y(chart, y[i]));
            drawing = true;
        }
    }
    text_append_string(chart->out, "\"/>\n");
}

/* Moves the end (x0, y0) of a segment along it until its y lies within the plot. */
static void cut(const svg_axis *y, double *x0, double *y0, double x1, double y1) {
    double limit = *y0 < y->low ? y->low : *y0 > y->high ? y->high : *y0;
    if (limit != *y0 && y1 != *y0) {
        *x0 += (x1 - *x0) * (limit - *y0) / (y1 - *y0);
        *y0 = limit;
    }
}

void svg_segment(svg_chart *chart, const char *class, double x0, double y0, double x1, double y1) {
    cut(&chart->y, &x0, &y0, x1, y1);
    cut(&chart->y, &x1, &y1, x0, y0);
    text_printf(chart->out, "<path class=\"line %s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", class,
                to_x(chart, x0), to_y(chart, y0), to_x(chart, x1), to_y(chart, y1));
}

void svg_dot(svg_chart *chart, const char *class, double x, double y) {
    if (isnan(x) || isnan(y)) {
        return;
    }
    text_printf(chart->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n", class,
                to_x(chart, x), to_y(chart, y));
}

void svg_boxes_begin(svg_chart *chart, const char *class, double opacity) {
    text_printf(chart->out, "<path class=\"%s\" fill-opacity=\"%.2f\" d=\"", class, opacity);
}

void svg_box(svg_chart *chart, double x0, double y0, double x1, double y1) {
    double left = to_x(chart, x0), right = to_x(chart, x1);
    double bottom = to_y(chart, y0), top = to_y(chart, y1);
    text_printf(chart->out, "M%.1f %.1fH%.1fV%.1fH%.1fz", left, top, right, bottom, left);
}

void svg_boxes_end(svg_chart *chart) {
    text_append_string(chart->out, "\"/>\n");
}
