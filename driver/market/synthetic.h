/* A market made by a known law, for demonstrations and for tests that need to know the truth.
 *
 * Return of ticker i on day t, with U standard Student t (5 degrees of freedom, unit variance):
 *
 *     r[t] = drift + mu[t] + beta_i f[t] + e[t]
 *     f[t] = 0.008 exp(h[t]) U             one factor for all tickers
 *     e[t] = 0.014 exp(h[t]/2 + g[t]) U    each ticker's own
 *
 * h (common) and g (own) are log-volatilities, first-order autoregressions with coefficient 0.97:
 * volatility clusters, tails are fat, tickers move together. log volume = level + 0.8 (h + g)
 * + 0.25 |U| + 0.3 normal: volume follows volatility.
 *
 * mu is what can be known the day before: mu[t+1] = m z[t], where z is the volume z-score of the 20
 * days up to t (a feature that the window shows) and m is such that over the ticker's days
 * sum(mu^2) : sum((r - drift - mu)^2) = S : 1 - S. So the best forecast possible, m z, has an R2 of
 * S (the signal) but for sampling error, and with S = 0 no forecast beats the drift. */
#ifndef MARKET_SYNTHETIC_H
#define MARKET_SYNTHETIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "market/market.h"

typedef struct synthetic_options {
    int32_t tickers, days;
    uint64_t seed;
    double signal; /* S, 0 <= S < 1 */
} synthetic_options;

typedef struct synthetic_bar {
    int32_t date; /* weekdays from 2014-01-02 on */
    double open, high, low, close;
    double adj_close; /* of dividends: 0.4% of the price every 63 days */
    double volume;
} synthetic_bar;

/* What all tickers share. */
typedef struct synthetic_market {
    synthetic_options options;
    int32_t *dates;     /* [days], owned */
    double *volatility; /* [days] h, owned */
    double *factor;     /* [days] f, owned */
} synthetic_market;

bool synthetic_create(synthetic_market *out, const synthetic_options *options, error *error);
void synthetic_free(synthetic_market *market);

void synthetic_name(char name[TICKER_NAME_SIZE], int32_t index);

/* bars [days] of ticker `index`, and mean [days]: mu of each day. Any order of tickers, from any
 * thread: a ticker is a function of the options and its index. */
bool synthetic_ticker(synthetic_bar *bars, double *mean, const synthetic_market *market,
                      int32_t index, error *error);

#endif
