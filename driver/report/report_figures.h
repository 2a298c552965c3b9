/* The page's figures, one function each: <figure>, inline SVG, legend and what it shows. */
#ifndef REPORT_REPORT_FIGURES_H
#define REPORT_REPORT_FIGURES_H

#include "report/report.h"

/* False when memory ran out. */
bool report_figures(text *out, const report *report, error *error);

#endif
