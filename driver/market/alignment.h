/* Tickers with different calendars, aligned by date (the rule is in market.h), and warnings about
 * what is odd in the prices that remain. */
#ifndef MARKET_ALIGNMENT_H
#define MARKET_ALIGNMENT_H

#include "base/text.h"
#include "market/columns.h"
#include "market/market.h"

/* Drops the rows on days outside the common calendar and counts, in market->rows_dropped and
 * days_missing; warns of stretches without prices. slices [market->count]. */
bool alignment_apply(market *market, columns *columns, column_slice *slices, text *warnings,
                     error *error);

/* Warns of days that look like an unadjusted split: the price halved (or worse) or doubled while
 * volume jumped, up or down;
 * and of still wilder ones in any case. */
void alignment_warn_moves(market *market, text *warnings);

/* Warns of prices of days after today. */
void alignment_warn_future(market *market, text *warnings);

#endif
