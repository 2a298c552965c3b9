#include "report/portfolio.h"

#include <math.h>

static void hold(portfolio *held, int32_t ticker, double weight) {
    held->positions[held->count++] = (position){ticker, weight};
}

static double weight_of(const portfolio *held, int32_t ticker) {
    for (int i = 0; i < held->count; i++) {
        if (held->positions[i].ticker == ticker) {
            return held->positions[i].weight;
        }
    }
    return 0;
}

/* Sum of |new weight - old weight| over the tickers of both. */
static double turnover_between(const portfolio *before, const portfolio *after) {
    double turnover = 0;
    for (int i = 0; i < after->count; i++) {
        const position *p = &after->positions[i];
        turnover += fabs(p->weight - weight_of(before, p->ticker));
    }
    for (int i = 0; i < before->count; i++) {
        const position *p = &before->positions[i];
        if (weight_of(after, p->ticker) == 0) {
            turnover += fabs(p->weight);
        }
    }
    return turnover;
}

portfolio_day portfolio_rebalance(portfolio *current, const ranked *order, const int32_t *ticker,
                                  const double *tradeable, int64_t count) {
    int64_t known = 0;
    double lowest = 0, highest = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(tradeable[order[i].index])) {
            highest = order[i].value;
            lowest = known++ == 0 ? highest : lowest;
        }
    }
    if (known == 0) {
        return (portfolio_day){NAN, NAN};
    }
    int64_t half = known / 2;
    int64_t side = half < PORTFOLIO_SIDE ? half : PORTFOLIO_SIDE;
    side = highest > lowest ? side : 0;
    double weight = side > 0 ? 1.0 / (double)side : 0, gross = 0;
    portfolio next = {.count = 0};
    for (int64_t i = 0, taken = 0; taken < side; i++) {
        int32_t row = order[i].index;
        if (isfinite(tradeable[row])) {
            hold(&next, ticker[row], -weight);
            gross -= weight * tradeable[row];
            taken++;
        }
    }
    for (int64_t i = count - 1, taken = 0; taken < side; i--) {
        int32_t row = order[i].index;
        if (isfinite(tradeable[row])) {
            hold(&next, ticker[row], weight);
            gross += weight * tradeable[row];
            taken++;
        }
    }
    double turnover = turnover_between(current, &next);
    *current = next;
    return (portfolio_day){gross, turnover};
}
