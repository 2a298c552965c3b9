/* Trains on a data set with a leak built in on purpose, and reports on it, so that a test can see
 * the alarm: leak_probe LEAK PRICES CONFIGURATION EPOCHS OUT
 *
 * none      nothing is wrong: OUT.json is the honest report
 * shifted   features of the day of the label: the target is off by one day
 * random    windows are split at random: training has neighbours of every test window
 * shuffled  training targets in random order: nothing is left to learn
 * scaler    the scaler is fitted on all rows: OUT is a checkpoint for `evaluate` to find it in */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "report/forecast.h"
#include "report/report.h"

typedef struct probe {
    const char *leak, *configuration, *out;
    int64_t epochs;
    market market;
    dataset dataset;
    dataset_metadata metadata;
    rp_checkpoint *checkpoint;
    error error;
} probe;

static bool is(const probe *probe, const char *leak) {
    return strcmp(probe->leak, leak) == 0;
}

static bool build(probe *p) {
    dataset_options options;
    dataset_options_init(&options);
    if (!is(p, "scaler")) {
        return dataset_build(&p->dataset, &p->market, &options, NULL, &p->error);
    }
    dataset all;
    options.train_fraction = 1;
    if (!dataset_build(&all, &p->market, &options, NULL, &p->error)) {
        return false;
    }
    scaler of_all_rows = all.scaler;
    dataset_free(&all);
    options.train_fraction = 0.8;
    return dataset_build(&p->dataset, &p->market, &options, &of_all_rows, &p->error);
}

/* Each row gets the features of its ticker's next row. */
static void shift_features(dataset *d) {
    for (int32_t t = 0; t < d->market->count; t++) {
        float *first = d->features + d->first_row[t] * DATASET_FEATURES;
        int64_t rows = d->first_row[t + 1] - d->first_row[t];
        memmove(first, first + DATASET_FEATURES,
                (size_t)(rows - 1) * DATASET_FEATURES * sizeof *first);
    }
}

static int64_t below(int64_t count) {
    static uint64_t state = 1;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)count);
}

static void shuffle_windows(dataset *d) {
    for (int64_t i = d->train_windows + d->test_windows - 1; i > 0; i--) {
        int64_t k = below(i + 1);
        int32_t window = d->windows[i];
        d->windows[i] = d->windows[k];
        d->windows[k] = window;
    }
}

static void shuffle_targets(dataset *d) {
    for (int64_t i = d->train_windows - 1; i > 0; i--) {
        float *a = &d->targets[d->windows[i]], *b = &d->targets[d->windows[below(i + 1)]];
        float target = *a;
        *a = *b;
        *b = target;
    }
}

static bool train(probe *p) {
    const dataset *d = &p->dataset;
    rp_data data = {d->features, d->targets, d->rows, d->windows, d->train_windows};
    rp_trainer_options options;
    rp_trainer_options_init(&options);
    options.configuration = p->configuration;
    options.model.dropout = 0;
    options.model.hidden = 32;
    options.batch = 128;
    rp_trainer *trainer = NULL;
    rp_progress progress = {0};
    rp_status status = rp_trainer_create(&trainer, &options, &data);
    while (status == RP_OK && progress.epoch < p->epochs) {
        status = rp_trainer_run(trainer, INT64_MAX, &progress);
    }
    if (status == RP_OK) {
        status = rp_trainer_snapshot(&p->checkpoint, trainer);
    }
    rp_trainer_free(trainer);
    return status == RP_OK || error_set(&p->error, "training: %s", rp_last_error());
}

static void move_row(panel *panel, int64_t to, int64_t from) {
    panel->ticker[to] = panel->ticker[from];
    panel->window_end[to] = panel->window_end[from];
    panel->actual[to] = panel->actual[from];
    panel->tradeable[to] = panel->tradeable[from];
    panel->actual_rank[to] = panel->actual_rank[from];
}

/* The test windows of a random split lie on all days. */
static bool select_test_windows(panel *panel, const dataset *d, error *error) {
    window_range all = {INT32_MIN, INT32_MAX, INT32_MAX};
    bool *is_test = calloc((size_t)d->rows, sizeof *is_test);
    panel_free(panel);
    if (!is_test || !panel_select(panel, d, all, error)) {
        free(is_test);
        return false;
    }
    for (int64_t i = 0; i < d->test_windows; i++) {
        is_test[d->windows[d->train_windows + i]] = true;
    }
    int64_t row = 0, days = 0;
    for (int64_t day = 0, first = 0; day < panel->days; day++) {
        int64_t end = panel->day_first[day + 1], start = row;
        for (; first < end; first++) {
            if (is_test[panel->window_end[first]]) {
                move_row(panel, row++, first);
            }
        }
        if (row > start) {
            panel->day_date[days] = panel->day_date[day];
            panel->day_first[days++] = start;
        }
    }
    panel->day_first[days] = panel->rows = row;
    panel->days = days;
    free(is_test);
    return true;
}

static bool write_report(probe *p, report *report) {
    report_model model = {.checkpoint = p->leak, .seed = "1"};
    rp_predictor *predictor = NULL;
    model.forecast = calloc((size_t)report->panel.rows + 1, sizeof *model.forecast);
    bool ok = model.forecast && rp_predictor_create(&predictor, p->checkpoint, 1) == RP_OK;
    report_add_model(report, &model);
    ok = ok && forecast_run(model.forecast, predictor, &p->dataset, &report->panel, &p->error) &&
         report_finish(report, &p->error);
    rp_predictor_free(predictor);
    json json = {.lines = 2};
    if (ok) {
        json_object(&json, NULL);
        report_json(&json, report);
        json_end(&json);
        ok = json_write(&json, p->out, &p->error);
    }
    json_free(&json);
    return ok;
}

static bool evaluate(probe *p) {
    dataset_metadata_describe(&p->metadata, &p->dataset, NULL);
    if (is(p, "scaler")) {
        dataset_metadata_lines lines;
        dataset_metadata_write(&lines, &p->metadata);
        return rp_checkpoint_save(p->checkpoint, p->out, lines.lines, lines.count) == RP_OK ||
               error_set(&p->error, "%s", rp_last_error());
    }
    report report = {0};
    audit none = {0};
    if (!report_begin(&report, &p->dataset, &p->metadata, &none, &p->error)) {
        return false;
    }
    bool ok = (!is(p, "random") || select_test_windows(&report.panel, &p->dataset, &p->error)) &&
              write_report(p, &report);
    report_free(&report);
    return ok;
}

int main(int argc, char **argv) {
    probe p = {0};
    if (argc != 6 || !parse_int64(argv[4], &p.epochs)) {
        fprintf(stderr, "usage: see the head of leak_probe.c\n");
        return 2;
    }
    p.leak = argv[1];
    p.configuration = argv[3];
    p.out = argv[5];
    market_options options = {0};
    bool ok = market_read(&p.market, argv[2], &options, &p.error) && build(&p);
    if (ok && is(&p, "shifted")) {
        shift_features(&p.dataset);
    } else if (ok && is(&p, "random")) {
        shuffle_windows(&p.dataset);
    } else if (ok && is(&p, "shuffled")) {
        shuffle_targets(&p.dataset);
    }
    ok = ok && train(&p) && evaluate(&p);
    rp_checkpoint_free(p.checkpoint);
    dataset_free(&p.dataset);
    market_free(&p.market);
    if (!ok) {
        fprintf(stderr, "%s\n", p.error.message);
    }
    return ok ? 0 : 1;
}
