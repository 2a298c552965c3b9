/* The long-short portfolio that a forecast stands for: each day long the 10 highest forecasts and
 * short the 10 lowest, equal weights, each side summing to 1. It earns the tradeable return: the
 * forecast is known at the close of t, the position is opened at the close of t+1. */
#ifndef REPORT_PORTFOLIO_H
#define REPORT_PORTFOLIO_H

#include "report/rank.h"

enum { PORTFOLIO_SIDE = 10 };
#define PORTFOLIO_COST 0.0005 /* 5 basis points per unit of turnover */

typedef struct position {
    int32_t ticker;
    double weight;
} position;

typedef struct portfolio {
    position positions[2 * PORTFOLIO_SIDE];
    int count;
} portfolio;

typedef struct portfolio_day {
    double gross, turnover; /* NaN on a day without a tradeable return */
} portfolio_day;

/* Moves to the positions of one day. order [count]: the day's forecasts, sorted; its indices point
 * into ticker and tradeable [count]. Rows whose tradeable return is unknown are left out; fewer
 * than 20 rows make smaller sides; a forecast that does not differ between stocks holds nothing. */
portfolio_day portfolio_rebalance(portfolio *portfolio, const ranked *order, const int32_t *ticker,
                                  const double *tradeable, int64_t count);

#endif
