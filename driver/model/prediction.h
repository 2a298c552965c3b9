/* What the model says about one ticker on one day. */
#ifndef MODEL_PREDICTION_H
#define MODEL_PREDICTION_H

#include "base/json.h"
#include "model/model.h"

typedef struct prediction {
    const char *ticker;                   /* borrowed from the market */
    int32_t date;                         /* day whose close is the last price used */
    double value;                         /* predicted return from this close to the next */
    double interval[CONFORMAL_LEVELS][2]; /* 80%, 95%: low, high; NaN: not calibrated */
    double actual;                        /* NaN when the next day is not known */
} prediction;

/* The row of a ticker's window that ends on `date`, or, with PREDICTION_LATEST, on its last day.
 * A ticker, a day or enough history before it that is missing is an error that says which. */
enum { PREDICTION_LATEST = INT32_MAX };
bool prediction_find_row(int64_t *row, const dataset *dataset, const char *ticker, int32_t date,
                         error *error);

/* out [count] for the windows that end at rows [count]. */
bool prediction_make(prediction *out, const model *model, const dataset *dataset,
                     const int32_t *rows, int64_t count, error *error);

/* One object, `predict --json`'s. */
void prediction_write(json *json, const prediction *prediction, const char *model_version);

#endif
