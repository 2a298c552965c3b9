#include "serve/predict_body.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "serve/json_body.h"
#include "serve/sequence.h"

static bool read_step(float *step, const json_t *row, int32_t t, error *error) {
    if (!json_is_array(row) || json_array_size(row) != DATASET_FEATURES) {
        return error_set(error, "sequence[%d] is not an array of %d numbers", t, DATASET_FEATURES);
    }
    for (int f = 0; f < DATASET_FEATURES; f++) {
        if (!json_body_float(&step[f], json_array_get(row, (size_t)f), "a value of the sequence",
                             error)) {
            return error_set(error, "sequence[%d][%d] (%s) is not a number of single precision", t,
                             f, feature_name[f]);
        }
    }
    return true;
}

static bool read_sequence(predict_body *out, const json_t *root, int32_t time_steps, error *error) {
    static const char *const names[] = {"sequence", "features", NULL};
    const json_t *rows = json_object_get(root, "sequence");
    const json_t *features = json_object_get(root, "features");
    const char *kind = features ? json_string_value(features) : "scaled";
    out->form = PREDICT_SEQUENCE;
    if (!json_body_only(root, names, error)) {
        return false;
    }
    if (!kind || (strcmp(kind, "scaled") != 0 && strcmp(kind, "raw") != 0)) {
        return error_set(error, "features is neither \"scaled\" nor \"raw\"");
    }
    out->raw = strcmp(kind, "raw") == 0;
    if (!json_is_array(rows) || json_array_size(rows) != (size_t)time_steps) {
        return error_set(error,
                         "sequence is not an array of %d days of [ret5, vol20, rsi14, volz20]",
                         time_steps);
    }
    for (int32_t t = 0; t < time_steps; t++) {
        if (!read_step(out->window + t * DATASET_FEATURES, json_array_get(rows, (size_t)t), t,
                       error)) {
            return false;
        }
    }
    return true;
}

static bool read_date(predict_body *out, const json_t *value, error *error) {
    const char *text = json_string_value(value);
    if (!text || !date_parse(text, &out->date)) {
        return error_set(error, "date is not a day written as \"2021-12-31\"");
    }
    out->has_date = true;
    return true;
}

static bool read_name(predict_body *out, const json_t *value, error *error) {
    const char *text = json_string_value(value);
    size_t length = text ? strlen(text) : 0;
    if (length == 0 || length >= sizeof out->ticker) {
        return error_set(error, "ticker is not a name of 1 to %zu characters",
                         sizeof out->ticker - 1);
    }
    memcpy(out->ticker, text, length + 1);
    return true;
}

static bool read_ticker(predict_body *out, const json_t *root, error *error) {
    static const char *const names[] = {"ticker", "date", NULL};
    const json_t *date = json_object_get(root, "date");
    out->form = PREDICT_TICKER;
    return json_body_only(root, names, error) &&
           read_name(out, json_object_get(root, "ticker"), error) &&
           (!date || read_date(out, date, error));
}

/* adj_close where it is given, else close. */
static bool read_bar(predict_body *out, const json_t *bar, int32_t i, error *error) {
    static const char *const names[] = {"date",  "open",      "high",   "low",
                                        "close", "adj_close", "volume", NULL};
    if (!json_is_object(bar)) {
        return error_set(error, "bars[%d] is not an object", i);
    }
    const json_t *price = json_object_get(bar, "adj_close");
    price = price ? price : json_object_get(bar, "close");
    out->adj_close[i] = json_number_value(price);
    out->volume[i] = json_number_value(json_object_get(bar, "volume"));
    if (!json_is_number(price) || !(out->adj_close[i] > 0) || !isfinite(out->adj_close[i])) {
        return error_set(error, "bars[%d] has no adj_close (or close) above 0", i);
    }
    if (!json_is_number(json_object_get(bar, "volume")) || !(out->volume[i] >= 0)) {
        return error_set(error, "bars[%d] has no volume of 0 or more", i);
    }
    const json_t *date = json_object_get(bar, "date");
    const bool had_date = out->has_date;
    const int32_t previous = out->date;
    if (!json_body_only(bar, names, error) || (date && !read_date(out, date, error))) {
        return false;
    }
    if (i > 0 && (date != NULL) != had_date) {
        return error_set(error, "bars[%d]: either all bars have a date or none", i);
    }
    if (date && had_date && out->date <= previous) {
        return error_set(error, "bars[%d] is not later than the bar before it", i);
    }
    return true;
}

static bool read_bars(predict_body *out, const json_t *root, int32_t time_steps, error *error) {
    static const char *const names[] = {"bars", "ticker", NULL};
    const json_t *bars = json_object_get(root, "bars");
    const json_t *name = json_object_get(root, "ticker");
    const int32_t needed = DATASET_WARM_UP + time_steps;
    out->form = PREDICT_BARS;
    if (!json_body_only(root, names, error) || (name && !read_name(out, name, error))) {
        return false;
    }
    if (!json_is_array(bars) || json_array_size(bars) < (size_t)needed) {
        return error_set(error,
                         "bars has %zu days; %d are needed: %d before the first features and a "
                         "window of %d",
                         json_array_size(bars), needed, DATASET_WARM_UP, time_steps);
    }
    out->bars = (int32_t)json_array_size(bars); /* the body's limit keeps it small */
    out->adj_close = calloc((size_t)out->bars, sizeof *out->adj_close);
    out->volume = calloc((size_t)out->bars, sizeof *out->volume);
    if (!out->adj_close || !out->volume) {
        return error_set(error, "no memory for %d bars", out->bars);
    }
    for (int32_t i = 0; i < out->bars; i++) {
        if (!read_bar(out, json_array_get(bars, (size_t)i), i, error)) {
            return false;
        }
    }
    return true;
}

static bool read_document(predict_body *out, int32_t time_steps, const json_t *root, error *error) {
    if (json_object_get(root, "sequence")) {
        return read_sequence(out, root, time_steps, error);
    }
    if (json_object_get(root, "bars")) {
        return read_bars(out, root, time_steps, error);
    }
    if (json_object_get(root, "ticker")) {
        return read_ticker(out, root, error);
    }
    return error_set(error, "body has none of \"sequence\", \"ticker\" and \"bars\"");
}

bool predict_body_parse(predict_body *out, int32_t time_steps, const char *body, size_t size,
                        error *error) {
    out->form = PREDICT_SEQUENCE;
    out->raw = out->has_date = false;
    out->ticker[0] = '\0';
    out->date = out->bars = 0;
    out->adj_close = out->volume = NULL;
    if (sequence_scan(out->window, time_steps, body, size)) {
        return true;
    }
    json_t *root = json_body_parse(body, size, error);
    if (!root) {
        return false;
    }
    bool ok = read_document(out, time_steps, root, error);
    json_decref(root);
    if (!ok) {
        predict_body_free(out);
    }
    return ok;
}

void predict_body_free(predict_body *body) {
    free(body->adj_close);
    free(body->volume);
    body->adj_close = body->volume = NULL;
}
