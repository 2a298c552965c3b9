#include "dataset/dataset_metadata.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"
#include "base/options.h"

static const char feature_names[] = "[\"ret5\",\"vol20\",\"rsi14\",\"volz20\"]";
static const char *const quantile_key[CONFORMAL_LEVELS] = {"interval.quantile_80",
                                                           "interval.quantile_95"};

/* Where the test period begins; without test windows, the day after the last known price. */
static int32_t test_first_date(const dataset *dataset) {
    if (dataset->test_windows > 0) {
        return dataset->test_first_date;
    }
    int32_t last = dataset->train_last_date;
    for (int32_t i = 0; i < dataset->market->count; i++) {
        const ticker *ticker = &dataset->market->tickers[i];
        int32_t date = ticker->dates[ticker->days - 1];
        last = date > last ? date : last;
    }
    return last + 1;
}

void dataset_metadata_describe(dataset_metadata *out, const dataset *dataset,
                               const conformal *intervals) {
    *out = (dataset_metadata){.scaler = dataset->scaler,
                              .options = dataset->options,
                              .train_last_date = dataset->train_last_date,
                              .test_first_date = test_first_date(dataset),
                              .calibrated = intervals != NULL};
    snprintf(out->sha256, sizeof out->sha256, "%s", dataset->market->sha256);
    if (intervals) {
        out->intervals = *intervals;
    }
}

static void add_line(dataset_metadata_lines *out, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add_line(dataset_metadata_lines *out, const char *key, const char *format, ...) {
    char *value = out->values[out->count];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, DATASET_METADATA_VALUE, format, arguments);
    va_end(arguments);
    out->lines[out->count++] = (rp_metadata){key, value};
}

static void add_features(dataset_metadata_lines *out, const char *key,
                         const double v[DATASET_FEATURES]) {
    add_line(out, key, "[%.17g,%.17g,%.17g,%.17g]", v[0], v[1], v[2], v[3]);
}

static void add_date(dataset_metadata_lines *out, const char *key, int32_t date) {
    char text[DATE_SIZE];
    date_format(text, date);
    add_line(out, key, "%s", text);
}

void dataset_metadata_write(dataset_metadata_lines *out, const dataset_metadata *m) {
    out->count = 0;
    add_line(out, "features", "%s", feature_names);
    add_features(out, "scaler.mean", m->scaler.mean);
    add_features(out, "scaler.sd", m->scaler.sd);
    add_line(out, "scaler.clip", "%.17g", m->scaler.clip);
    add_line(out, "window.time_steps", "%d", (int)m->options.time_steps);
    add_line(out, "split.train_fraction", "%.17g", m->options.train_fraction);
    add_line(out, "split.validation_fraction", "%.17g", m->options.validation_fraction);
    add_line(out, "split.embargo_days", "%d", (int)m->options.embargo_days);
    if (m->options.by_date) {
        add_date(out, "split.train_first_date", m->options.train_first_date);
    }
    add_date(out, "split.train_last_date", m->train_last_date);
    add_date(out, "split.test_first_date", m->test_first_date);
    add_line(out, "data.sha256", "%s", m->sha256);
    if (m->calibrated) {
        for (int level = 0; level < CONFORMAL_LEVELS; level++) {
            add_line(out, quantile_key[level], "%.17g", m->intervals.quantile[level]);
        }
        add_line(out, "interval.calibration", "%s",
                 m->intervals.held_out ? "validation" : "training");
    }
}

static bool find_line(const char **value, const rp_checkpoint *checkpoint, const char *key,
                      error *error) {
    *value = rp_checkpoint_metadata(checkpoint, key);
    return *value || error_set(error,
                               "the checkpoint has no metadata \"%s\"; it was not written by "
                               "`return-predictor train`",
                               key);
}

static bool refuse(const char *key, const char *value, const char *expected, error *error) {
    return error_set(error, "the checkpoint's metadata \"%s\" is \"%.80s\"; expected %s", key,
                     value, expected);
}

static bool read_number(double *out, const rp_checkpoint *checkpoint, const char *key, double least,
                        double most, error *error) {
    const char *value;
    if (!find_line(&value, checkpoint, key, error)) {
        return false;
    }
    if (!parse_double(value, out) || !(*out >= least && *out <= most)) {
        char expected[80];
        snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
        return refuse(key, value, expected, error);
    }
    return true;
}

static bool read_whole(int32_t *out, const rp_checkpoint *checkpoint, const char *key,
                       int32_t least, int32_t most, error *error) {
    double number;
    if (!read_number(&number, checkpoint, key, least, most, error)) {
        return false;
    }
    *out = (int32_t)number;
    return *out == number ||
           refuse(key, rp_checkpoint_metadata(checkpoint, key), "a whole number", error);
}

/* "[a,b,c,d]" */
static bool parse_features(const char *text, double out[DATASET_FEATURES]) {
    if (*text++ != '[') {
        return false;
    }
    for (int i = 0; i < DATASET_FEATURES; i++) {
        char *end;
        out[i] = strtod(text, &end);
        char expected = i + 1 < DATASET_FEATURES ? ',' : ']';
        if (end == text || *end != expected || !isfinite(out[i])) {
            return false;
        }
        text = end + 1;
    }
    return *text == '\0';
}

static bool read_features(double out[DATASET_FEATURES], const rp_checkpoint *checkpoint,
                          const char *key, error *error) {
    const char *value;
    if (!find_line(&value, checkpoint, key, error)) {
        return false;
    }
    return parse_features(value, out) || refuse(key, value, "a list of 4 finite numbers", error);
}

static bool read_date(int32_t *out, const rp_checkpoint *checkpoint, const char *key,
                      error *error) {
    const char *value;
    if (!find_line(&value, checkpoint, key, error)) {
        return false;
    }
    return date_parse(value, out) || refuse(key, value, "a date like 2021-12-31", error);
}

static bool read_text(char *out, size_t size, const rp_checkpoint *checkpoint, const char *key,
                      error *error) {
    const char *value;
    if (!find_line(&value, checkpoint, key, error)) {
        return false;
    }
    if (strlen(value) >= size) {
        return refuse(key, value, "a shorter text", error);
    }
    snprintf(out, size, "%s", value);
    return true;
}

static bool read_scaler(scaler *out, const rp_checkpoint *checkpoint, error *error) {
    if (!read_features(out->mean, checkpoint, "scaler.mean", error) ||
        !read_features(out->sd, checkpoint, "scaler.sd", error) ||
        !read_number(&out->clip, checkpoint, "scaler.clip", 1e-3, 1e6, error)) {
        return false;
    }
    for (int i = 0; i < DATASET_FEATURES; i++) {
        if (!(out->sd[i] > 0)) {
            return refuse("scaler.sd", rp_checkpoint_metadata(checkpoint, "scaler.sd"),
                          "positive numbers", error);
        }
    }
    return true;
}

static bool read_split(dataset_metadata *out, const rp_checkpoint *checkpoint, error *error) {
    dataset_options *options = &out->options;
    if (!read_whole(&options->time_steps, checkpoint, "window.time_steps", 1, 64, error) ||
        !read_number(&options->train_fraction, checkpoint, "split.train_fraction", 0, 1, error) ||
        !read_number(&options->validation_fraction, checkpoint, "split.validation_fraction", 0, 1,
                     error) ||
        !read_whole(&options->embargo_days, checkpoint, "split.embargo_days", 0, 10000, error) ||
        !read_date(&out->train_last_date, checkpoint, "split.train_last_date", error) ||
        !read_date(&out->test_first_date, checkpoint, "split.test_first_date", error)) {
        return false;
    }
    options->by_date = rp_checkpoint_metadata(checkpoint, "split.train_first_date") != NULL;
    options->test_first_date = out->test_first_date;
    if (options->by_date &&
        !read_date(&options->train_first_date, checkpoint, "split.train_first_date", error)) {
        return false;
    }
    return out->train_last_date < out->test_first_date ||
           refuse("split.test_first_date",
                  rp_checkpoint_metadata(checkpoint, "split.test_first_date"),
                  "a day after split.train_last_date", error);
}

static bool read_intervals(dataset_metadata *out, const rp_checkpoint *checkpoint, error *error) {
    out->calibrated = rp_checkpoint_metadata(checkpoint, quantile_key[0]) != NULL;
    if (!out->calibrated) {
        return true;
    }
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        if (!read_number(&out->intervals.quantile[level], checkpoint, quantile_key[level], 0, 1e9,
                         error)) {
            return false;
        }
    }
    const char *block;
    if (!find_line(&block, checkpoint, "interval.calibration", error)) {
        return false;
    }
    out->intervals.held_out = strcmp(block, "validation") == 0;
    return out->intervals.held_out || strcmp(block, "training") == 0 ||
           refuse("interval.calibration", block, "validation or training", error);
}

bool dataset_metadata_read(dataset_metadata *out, const rp_checkpoint *checkpoint, error *error) {
    memset(out, 0, sizeof *out);
    const char *features;
    if (!find_line(&features, checkpoint, "features", error)) {
        return false;
    }
    if (strcmp(features, feature_names) != 0) {
        return refuse("features", features, feature_names, error);
    }
    return read_scaler(&out->scaler, checkpoint, error) && read_split(out, checkpoint, error) &&
           read_text(out->sha256, sizeof out->sha256, checkpoint, "data.sha256", error) &&
           read_intervals(out, checkpoint, error);
}

bool dataset_metadata_rebuild(dataset *out, const dataset_metadata *metadata,
                              const rp_checkpoint *checkpoint, const market *market, error *error) {
    rp_model_options model;
    if (rp_checkpoint_model(&model, checkpoint) != RP_OK) {
        return error_set(error, "the checkpoint's model: %s", rp_last_error());
    }
    if (model.features != DATASET_FEATURES || model.time_steps != metadata->options.time_steps) {
        return error_set(error,
                         "the checkpoint's model takes %d features over %d days; these windows "
                         "have %d over %d",
                         model.features, model.time_steps, DATASET_FEATURES,
                         metadata->options.time_steps);
    }
    return dataset_build(out, market, &metadata->options, &metadata->scaler, error);
}
