/* The latest prediction of a ticker. */
#ifndef SERVE_TICKERS_H
#define SERVE_TICKERS_H

#include "base/date.h"
#include "serve/snapshot.h"

typedef struct latest {
    const char *name; /* the snapshot's */
    char date[DATE_SIZE];
    double adj_close;
    forecast forecast;
} latest;

/* False when there is too little history, or the table of predictions has not come so far. */
bool tickers_latest(latest *out, const snapshot *snapshot, int32_t ticker);

#endif
