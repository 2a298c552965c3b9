#include "model/prediction.h"

#include <math.h>
#include <stdlib.h>

#include "base/date.h"
#include "report/conformal.h"

/* First row of a ticker at which a whole window ends. */
static int64_t first_window(const dataset *dataset, int32_t ticker) {
    return dataset->first_row[ticker] + dataset->options.time_steps - 1;
}

static bool refuse_date(const ticker *ticker, int32_t date, error *error) {
    char asked[DATE_SIZE], first[DATE_SIZE], last[DATE_SIZE];
    date_format(asked, date);
    date_format(first, ticker->dates[0]);
    date_format(last, ticker->dates[ticker->days - 1]);
    return error_set(error, "%s has no prices on %s; its days run from %s to %s", ticker->name,
                     asked, first, last);
}

static bool refuse_history(const dataset *dataset, const ticker *ticker, error *error) {
    return error_set(error, "%s has too little history: a prediction needs %d earlier trading days",
                     ticker->name, DATASET_WARM_UP + dataset->options.time_steps - 1);
}

static bool has_day(const ticker *ticker, int32_t date) {
    for (int32_t day = 0; day < ticker->days; day++) {
        if (ticker->dates[day] == date) {
            return true;
        }
    }
    return false;
}

bool prediction_find_row(int64_t *row, const dataset *dataset, const char *name, int32_t date,
                         error *error) {
    int32_t index = market_find(dataset->market, name);
    if (index < 0) {
        return error_set(error, "there is no ticker \"%s\" among the %d of the price files", name,
                         dataset->market->count);
    }
    const ticker *ticker = &dataset->market->tickers[index];
    if (date == PREDICTION_LATEST) {
        *row = dataset->first_row[index + 1] - 1;
    } else {
        if (!has_day(ticker, date)) {
            return refuse_date(ticker, date, error);
        }
        *row = dataset_find_row(dataset, index, date);
    }
    return *row >= first_window(dataset, index) || refuse_history(dataset, ticker, error);
}

bool prediction_make(prediction *out, const model *model, const dataset *dataset,
                     const int32_t *rows, int64_t count, error *error) {
    float *returns = malloc((size_t)(count + 1) * sizeof *returns);
    if (!returns) {
        return error_set(error, "out of memory for %lld predictions", (long long)count);
    }
    if (rp_predictor_run(returns, model->predictor, dataset->features, dataset->rows, rows,
                         count) != RP_OK) {
        free(returns);
        return error_set(error, "the prediction failed: %s", rp_last_error());
    }
    for (int64_t i = 0; i < count; i++) {
        int32_t ticker = dataset_ticker(dataset, rows[i]);
        out[i] = (prediction){.ticker = dataset->market->tickers[ticker].name,
                              .date = dataset_date(dataset, rows[i]),
                              .value = returns[i],
                              .actual = dataset_return(dataset, rows[i])};
        double volatility = dataset_volatility(dataset, rows[i]);
        for (int level = 0; level < CONFORMAL_LEVELS; level++) {
            double half = model->metadata.calibrated
                              ? conformal_half_width(&model->metadata.intervals, level, volatility)
                              : NAN;
            out[i].interval[level][0] = out[i].value - half;
            out[i].interval[level][1] = out[i].value + half;
        }
    }
    free(returns);
    return true;
}

void prediction_write(json *json, const prediction *prediction, const char *model_version) {
    static const char *const keys[CONFORMAL_LEVELS] = {"interval_80", "interval_95"};
    char date[DATE_SIZE];
    date_format(date, prediction->date);
    json_object(json, NULL);
    json_string(json, "ticker", prediction->ticker);
    json_string(json, "date", date);
    json_double(json, "prediction", prediction->value);
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        json_array(json, keys[level]);
        json_double(json, NULL, prediction->interval[level][0]);
        json_double(json, NULL, prediction->interval[level][1]);
        json_end(json);
    }
    json_double(json, "actual", prediction->actual);
    json_string(json, "model_version", model_version);
    json_end(json);
}
