/* POST /predict. A ticker and date are looked up in the table of predictions; everything else, and
 * what the table does not have yet, runs through the model in the worker's next batch. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "serve/handlers.h"
#include "serve/response.h"
#include "serve/worker.h"

enum { ANSWER_SIZE = 1024 };

/* 9 significant digits read back as the same float. */
static int write_number(char *out, size_t size, double value) {
    return isfinite(value) ? snprintf(out, size, "%.9g", value) : snprintf(out, size, "null");
}

static size_t write_forecast(char *out, size_t size, const request *request,
                             const forecast *forecast) {
    int used = snprintf(out, size,
                        "{\"predicted_return\": %.9g, \"model\": \"" MODEL_NAME
                        "\", \"sequence_length\": %d, ",
                        (double)forecast->value, request->snapshot->time_steps);
    if (forecast->has_intervals) {
        used += snprintf(out + used, size - (size_t)used,
                         "\"interval_80\": [%.9g, %.9g], \"interval_95\": [%.9g, %.9g], ",
                         forecast->interval[0][0], forecast->interval[0][1],
                         forecast->interval[1][0], forecast->interval[1][1]);
    } else {
        used += snprintf(out + used, size - (size_t)used,
                         "\"interval_80\": null, \"interval_95\": null, ");
    }
    used += snprintf(out + used, size - (size_t)used,
                     "\"model_version\": \"%s\", \"units\": \"fraction of the price, from this "
                     "close to the next trading day's\"",
                     request->snapshot->model.version);
    return (size_t)used;
}

static size_t write_day(char *out, size_t size, const request *request) {
    const predict_body *body = &request->predict;
    char date[DATE_SIZE], actual[32];
    int used = 0;
    if (body->ticker[0]) {
        json name = {0};
        json_string(&name, NULL, body->ticker);
        used +=
            snprintf(out, size, ", \"ticker\": %s", text_ok(&name.text) ? name.text.data : "null");
        json_free(&name);
    }
    const dataset *dataset = &request->snapshot->dataset;
    if (request->row >= 0 || body->has_date) {
        date_format(date, request->row >= 0 ? dataset_date(dataset, request->row) : body->date);
        used += snprintf(out + used, size - (size_t)used, ", \"date\": \"%s\"", date);
    }
    if (request->row >= 0) {
        write_number(actual, sizeof actual, dataset_return(dataset, request->row));
        used += snprintf(out + used, size - (size_t)used, ", \"actual\": %s", actual);
    }
    return (size_t)used;
}

static void answer(request *request) {
    char out[ANSWER_SIZE];
    forecast forecast =
        snapshot_forecast(request->snapshot, request->predicted, request->volatility);
    size_t used = write_forecast(out, sizeof out - 3, request, &forecast);
    used += write_day(out + used, sizeof out - 3 - used, request);
    memcpy(out + used, "}\n", 3);
    response_send(request,
                  &(response){.status = 200, .type = content_json, .data = out, .size = used + 2});
}

static void answer_after_batch(request *request) {
    if (request->job.failed || !isfinite(request->predicted)) {
        response_send_error(request, 422, "the model has no finite answer to this window");
    } else {
        answer(request);
    }
}

static void predict_window(request *request, const float *window) {
    request_await_batch(request, window, &request->predicted, 1, answer_after_batch);
}

static void predict_row(request *request) {
    const snapshot *snapshot = request->snapshot;
    const predict_body *body = &request->predict;
    error error;
    if (!snapshot_find(&request->row, snapshot, body->ticker, body->has_date, body->date, &error)) {
        response_send_error(request, 404, "%s", error.message);
        return;
    }
    request->volatility = dataset_volatility(&snapshot->dataset, request->row);
    if (request->row < atomic_load_explicit(&snapshot->predicted, memory_order_acquire)) {
        request->predicted = snapshot->predictions[request->row];
        counter_add(&request->worker->metrics.lookups, 1);
        answer(request);
        return;
    }
    predict_window(request, snapshot->dataset.features +
                                (request->row - snapshot->time_steps + 1) * DATASET_FEATURES);
}

static void scale(float *window, const snapshot *snapshot, const double *raw) {
    for (int32_t t = 0; t < snapshot->time_steps; t++) {
        for (int f = 0; f < DATASET_FEATURES; f++) {
            const int32_t i = t * DATASET_FEATURES + f;
            window[i] = (float)scaler_apply(&snapshot->model.metadata.scaler, f, raw[i]);
        }
    }
}

static void predict_sequence(request *request) {
    predict_body *body = &request->predict;
    const int32_t last = (request->snapshot->time_steps - 1) * DATASET_FEATURES;
    if (body->raw) {
        double raw[TIME_STEPS_MOST * DATASET_FEATURES];
        for (int32_t i = 0; i < request->snapshot->time_steps * DATASET_FEATURES; i++) {
            raw[i] = body->window[i];
        }
        request->volatility = raw[last + FEATURE_VOL20];
        scale(body->window, request->snapshot, raw);
    } else {
        request->volatility = snapshot_volatility(request->snapshot, body->window);
    }
    predict_window(request, body->window);
}

static void predict_bars(request *request) {
    predict_body *body = &request->predict;
    const int32_t days = body->bars - DATASET_WARM_UP;
    const int32_t first = days - request->snapshot->time_steps;
    double *raw = malloc((size_t)days * DATASET_FEATURES * sizeof *raw);
    if (!raw) {
        response_send_error(request, 503, "out of memory");
        return;
    }
    features_compute(body->adj_close, body->volume, body->bars, raw);
    request->volatility = features_volatility(body->adj_close, body->bars - 1);
    bool finite = true;
    for (int32_t i = first * DATASET_FEATURES; i < days * DATASET_FEATURES; i++) {
        finite &= isfinite(raw[i]) != 0;
    }
    scale(body->window, request->snapshot, raw + first * DATASET_FEATURES);
    free(raw);
    if (finite) {
        predict_window(request, body->window);
    } else {
        response_send_error(request, 422, "these bars have features that are not finite");
    }
}

void handle_predict(request *request) {
    error error;
    request->row = -1;
    if (!predict_body_parse(&request->predict, request->snapshot->time_steps,
                            request->body ? request->body : "", request->body_size, &error)) {
        response_send_error(request, 400, "%s", error.message);
        return;
    }
    switch (request->predict.form) {
    case PREDICT_SEQUENCE:
        predict_sequence(request);
        break;
    case PREDICT_TICKER:
        predict_row(request);
        break;
    case PREDICT_BARS:
        predict_bars(request);
        break;
    }
}
