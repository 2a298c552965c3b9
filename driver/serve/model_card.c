#include "serve/model_card.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/date.h"
#include "serve/handlers.h"
#include "serve/response.h"

typedef struct list {
    model_card_fact fact;
    void *context;
} list;

static void add(const list *list, const char *key, const char *label, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void add(const struct list *list, const char *key, const char *label, const char *format,
                ...) {
    char value[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    list->fact(list->context, key, label, value);
}

static const char *metadata(const snapshot *snapshot, const char *key) {
    const char *value = rp_checkpoint_metadata(snapshot->model.checkpoint, key);
    return value ? value : "unknown";
}

static void list_model(const list *list, const snapshot *s) {
    add(list, "version", "Version", "%s", s->model.version);
    add(list, "architecture", "Architecture",
        "LSTM, %d layers of %d units over %d days of %d features; batch norm, leaky ReLU, linear",
        s->shape.layers, s->shape.hidden, s->time_steps, s->shape.features);
    add(list, "parameters", "Parameters", "%lld", (long long)s->parameters);
    add(list, "seed", "Seed", "%s", metadata(s, "training.seed"));
    add(list, "configuration", "Trained by", "configuration %s, precision %s, batch %s, %s steps",
        metadata(s, "training.configuration"), metadata(s, "training.precision"),
        metadata(s, "training.batch"), metadata(s, "training.step"));
    add(list, "program_version", "Program", "%s", metadata(s, "checkpoint.program"));
}

static void list_data(const list *list, const snapshot *s) {
    char train[DATE_SIZE], test[DATE_SIZE];
    date_format(train, s->model.metadata.train_last_date);
    date_format(test, s->model.metadata.test_first_date);
    add(list, "train_last_date", "Trained on windows up to", "%s", train);
    add(list, "test_first_date", "Not seen in training: from", "%s", test);
    add(list, "training_data_sha256", "Training data, SHA-256", "%s", s->model.metadata.sha256);
    add(list, "served_data", "Prices served", "%d tickers, %lld days in all%s", s->market.count,
        (long long)s->market.rows,
        strcmp(s->market.sha256, s->model.metadata.sha256) == 0
            ? ", the training data itself"
            : ", other files than it trained on");
    if (s->model.metadata.calibrated) {
        add(list, "intervals", "Intervals",
            "forecast +- q x vol20, q(80%%) = %.3f, q(95%%) = %.3f, calibrated on %s windows",
            s->model.metadata.intervals.quantile[0], s->model.metadata.intervals.quantile[1],
            s->model.metadata.intervals.held_out ? "validation" : "training");
    } else {
        add(list, "intervals", "Intervals", "none: the checkpoint was not calibrated");
    }
    add(list, "loaded_at", "Loaded", "%s", s->loaded_at);
}

static void list_report(const list *list, const snapshot *s) {
    const report_summary *report = &s->evidence.report;
    if (!report->known) {
        add(list, "verdict", "Verdict of the report",
            "no report was given: run evaluate --out and start with --report");
        return;
    }
    add(list, "verdict", "Verdict of the report", "%s", report->sentence);
    add(list, "comparison", "Against baselines", "%s", report->comparison);
    if (strcmp(report->model_version, s->model.version) != 0) {
        add(list, "report_model_version", "The report judged another model", "%s",
            report->model_version);
    }
    add(list, "test_period", "Test period", "%s to %s", report->first_date, report->last_date);
    static const struct {
        const char *key, *label;
    } shown[] = {{"mse", "Test MSE"},
                 {"r2_zero", "R2 against forecasting zero"},
                 {"direction", "Direction right"},
                 {"base_rate", "Direction right by always saying up"},
                 {"ic", "Information coefficient"}};
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        for (int32_t k = 0; k < report->count; k++) {
            if (strcmp(report->statistics[k].name, shown[i].key) == 0) {
                add(list, shown[i].key, shown[i].label, "%.6g", report->statistics[k].value);
            }
        }
    }
}

void model_card_list(const snapshot *snapshot, model_card_fact fact, void *context) {
    const list list = {fact, context};
    list_model(&list, snapshot);
    list_data(&list, snapshot);
    list_report(&list, snapshot);
}

static void write_fact(void *context, const char *key, const char *label, const char *value) {
    (void)label;
    json_string(context, key, value);
}

void handle_model_card(request *request) {
    json json = {.lines = 1};
    json_object(&json, NULL);
    json_string(&json, "model", MODEL_NAME);
    model_card_list(request->snapshot, write_fact, &json);
    json_end(&json);
    response_send_json(request, 200, &json);
}
