/* A chart as inline SVG: a plot area with axes, and marks in data coordinates. Colours are classes
 * of the page's style sheet, so that they follow its dark and light theme. */
#ifndef REPORT_SVG_H
#define REPORT_SVG_H

#include <stdint.h>

#include "base/text.h"

typedef enum svg_scale { SVG_NUMBER, SVG_COUNT, SVG_PERCENT, SVG_DATE } svg_scale;

typedef struct svg_axis {
    const char *label;
    svg_scale scale; /* counts are whole, percents fractions, dates days since 1970-01-01 */
    double low, high;
} svg_axis;

typedef struct svg_chart {
    text *out; /* borrowed */
    svg_axis x, y;
} svg_chart;

/* Opens the image and draws axes, grid and labels; `title` is what a screen reader says. An axis
 * without extent is widened. */
svg_chart svg_open(text *out, const char *title, svg_axis x, svg_axis y);
void svg_close(svg_chart *chart);

/* A line through (x, y) [count], broken where y is NaN. */
void svg_line(svg_chart *chart, const char *class, const double *x, const double *y, int64_t count);

/* The straight line from (x0, y0) to (x1, y1), cut to the plot area. */
void svg_segment(svg_chart *chart, const char *class, double x0, double y0, double x1, double y1);

/* Nothing where x or y is NaN. */
void svg_dot(svg_chart *chart, const char *class, double x, double y);

/* Rectangles of one class and opacity, as one path: begin, any number of boxes, end. */
void svg_boxes_begin(svg_chart *chart, const char *class, double opacity);
void svg_box(svg_chart *chart, double x0, double y0, double x1, double y1);
void svg_boxes_end(svg_chart *chart);

/* Widens [*low, *high] to contain every finite value. Begin with an empty range, low > high. */
void svg_extend(double *low, double *high, const double *values, int64_t count);

#endif
