/* The body of POST /predict in its three forms:
 *
 *     {"sequence": [[ret5, vol20, rsi14, volz20] x T], "features": "scaled" | "raw"}
 *     {"ticker": "AAPL", "date": "2021-12-31"}          without a date: the latest day
 *     {"bars": [{"date"?, "adj_close" or "close", "volume"}, ...]}
 *
 * A sequence is the model's input, so "scaled" is what a missing "features" means; with "raw" the
 * server applies the checkpoint's scaler. Pure functions of the bytes. */
#ifndef SERVE_PREDICT_BODY_H
#define SERVE_PREDICT_BODY_H

#include "base/error.h"
#include "dataset/dataset.h"

enum { TIME_STEPS_MOST = 64 };

typedef enum predict_form { PREDICT_SEQUENCE, PREDICT_TICKER, PREDICT_BARS } predict_form;

typedef struct predict_body {
    predict_form form;
    bool raw;                                         /* of a sequence: not scaled yet */
    float window[TIME_STEPS_MOST * DATASET_FEATURES]; /* [T][F] of a sequence */
    char ticker[TICKER_NAME_SIZE];                    /* "" with bars that name none */
    bool has_date;                                    /* of a ticker, or of the last bar */
    int32_t date;
    int32_t bars;
    double *adj_close, *volume; /* [bars], owned */
} predict_body;

/* `time_steps` is the model's T. On failure nothing is to be freed. */
bool predict_body_parse(predict_body *out, int32_t time_steps, const char *body, size_t size,
                        error *error);
void predict_body_free(predict_body *body);

#endif
