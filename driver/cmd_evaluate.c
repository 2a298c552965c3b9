/* evaluate: what trained models are worth on the days that they have not seen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/options.h"
#include "base/result.h"
#include "command.h"
#include "model/model.h"
#include "report/forecast.h"
#include "report/report.h"
#include "training/training_save.h"

typedef struct evaluate_options {
    const char *prices, *out, *html, *forecasts;
    string_list checkpoints;
    market_options market;
    int64_t threads;
    bool strict;
} evaluate_options;

/* Models of one report must have been trained on the same data: else the first one's features and
 * test period would not be the others'. */
static bool same_data(const dataset_metadata *a, const dataset_metadata *b) {
    return memcmp(&a->scaler, &b->scaler, sizeof a->scaler) == 0 &&
           a->options.time_steps == b->options.time_steps &&
           a->train_last_date == b->train_last_date && a->test_first_date == b->test_first_date;
}

static bool load_models(model *models, const evaluate_options *options, error *error) {
    for (int32_t i = 0; i < options->checkpoints.count; i++) {
        if (!model_load(&models[i], options->checkpoints.items[i], (int32_t)options->threads,
                        error)) {
            return false;
        }
        if (!same_data(&models[0].metadata, &models[i].metadata)) {
            return error_set(error,
                             "%s and %s were trained on different data; evaluate them one by one",
                             options->checkpoints.items[0], options->checkpoints.items[i]);
        }
    }
    return true;
}

/* The data set that the models understand. When the prices are those of training, its own scaler
 * is the checkpoint's, bit for bit, and `audit` says so; otherwise the checkpoint's is put in. */
static bool rebuild(dataset *out, audit *audit, const model *model, const market *market,
                    error *error) {
    const dataset_metadata *metadata = &model->metadata;
    if (strcmp(metadata->sha256, market->sha256) == 0) {
        if (!dataset_build(out, market, &metadata->options, NULL, error)) {
            return false;
        }
        *audit = audit_checkpoint(metadata, out);
        if (memcmp(&out->scaler, &metadata->scaler, sizeof out->scaler) == 0) {
            return true;
        }
        dataset_free(out);
    }
    return model_dataset(out, model, market, error);
}

/* The report finds its windows by date and computes returns from prices: what it does not read is
 * a third of a large universe's memory. */
static void drop_unread(market *market, dataset *dataset) {
    market_forget_volumes(market);
    free(dataset->windows);
    free(dataset->targets);
    dataset->windows = NULL;
    dataset->targets = NULL;
}

static bool add_forecasts(report *report, const model *models, const evaluate_options *options,
                          error *error) {
    for (int32_t i = 0; i < options->checkpoints.count; i++) {
        const rp_checkpoint *checkpoint = models[i].checkpoint;
        report_model added = {.checkpoint = options->checkpoints.items[i],
                              .seed = rp_checkpoint_metadata(checkpoint, "training.seed"),
                              .losses = rp_checkpoint_metadata(checkpoint, "training.epoch_losses"),
                              .validation_losses =
                                  rp_checkpoint_metadata(checkpoint, TRAINING_VALIDATION_LOSSES)};
        snprintf(added.version, sizeof added.version, "%s", models[i].version);
        added.forecast = malloc((size_t)report->panel.rows * sizeof *added.forecast);
        if (!added.forecast) {
            return error_set(error, "out of memory for the forecasts");
        }
        report_add_model(report, &added);
        if (!forecast_run(added.forecast, models[i].predictor, report->dataset, &report->panel,
                          error)) {
            return false;
        }
    }
    return true;
}

static bool write_json(const report *report, const char *path, int argc, char **argv,
                       error *error) {
    json json = {.lines = 3};
    result_begin(&json, argc, argv, NULL);
    report_json(&json, report);
    json_end(&json);
    bool ok = json_write(&json, path, error);
    json_free(&json);
    return ok;
}

static bool write_html(const report *report, const char *path, int argc, char **argv,
                       error *error) {
    json provenance = {.lines = 0}; /* the same head as the JSON file's, on one line */
    result_begin(&provenance, argc, argv, NULL);
    json_end(&provenance);
    text page = {0};
    bool ok = report_html(&page, report, provenance.text.data, error) &&
              file_write_text(path, &page, error);
    text_free(&page);
    json_free(&provenance);
    return ok;
}

static bool write_forecasts(const report *report, const char *path, error *error) {
    text table = {0};
    bool ok = report_forecasts(&table, report, error) && file_write_text(path, &table, error);
    text_free(&table);
    return ok;
}

static bool write_results(const report *report, const evaluate_options *options, int argc,
                          char **argv, error *error) {
    text table = {0};
    report_text(&table, report);
    bool ok = file_print_text(&table, error);
    text_free(&table);
    return ok && (!options->out || write_json(report, options->out, argc, argv, error)) &&
           (!options->html || write_html(report, options->html, argc, argv, error)) &&
           (!options->forecasts || write_forecasts(report, options->forecasts, error));
}

static bool evaluate(const evaluate_options *options, int argc, char **argv, bool *leakage,
                     error *error) {
    model models[REPORT_MODELS] = {{0}};
    market market = {0};
    dataset dataset = {0};
    audit audit = {0};
    report report = {0};
    bool ok = load_models(models, options, error) &&
              market_read(&market, options->prices, &options->market, error) &&
              rebuild(&dataset, &audit, &models[0], &market, error);
    if (ok) {
        drop_unread(&market, &dataset);
    }
    ok = ok && report_begin(&report, &dataset, &models[0].metadata, &audit, error) &&
         add_forecasts(&report, models, options, error) && report_finish(&report, error) &&
         write_results(&report, options, argc, argv, error);
    *leakage = report.verdict.leakage;
    report_free(&report);
    dataset_free(&dataset);
    market_free(&market);
    for (int32_t i = 0; i < options->checkpoints.count; i++) {
        model_free(&models[i]);
    }
    return ok;
}

int cmd_evaluate(int argc, char **argv) {
    evaluate_options o = {0};
    option options[] = {
        MARKET_OPTIONS(o.prices, o.market),
        {"checkpoint", OPTION_LIST, &o.checkpoints, "FILE,...",
         "the trained model, or several that differ in their seed", .required = true},
        {"out", OPTION_STRING, &o.out, "FILE.json", "the report for programs"},
        {"html", OPTION_STRING, &o.html, "FILE.html", "the report as a page with figures"},
        {"forecasts", OPTION_STRING, &o.forecasts, "FILE.csv",
         "every test window: what happened, what the models and the baselines said"},
        {"strict", OPTION_FLAG, &o.strict, NULL, "exit 3 when a result is too good to be true"},
        {"threads", OPTION_INT64, &o.threads, "N", "0: one a core", .least = 0, .most = 1024},
    };
    int status;
    if (!OPTIONS_PARSE("evaluate", "Says what a model is worth on days it has not seen.", options,
                       argc, argv, &status)) {
        return status;
    }
    error error = {""};
    if (o.checkpoints.count > REPORT_MODELS) {
        fprintf(stderr, "return-predictor evaluate: at most %d checkpoints\n", REPORT_MODELS);
        return EXIT_USAGE;
    }
    bool leakage;
    if (!evaluate(&o, argc, argv, &leakage, &error)) {
        fprintf(stderr, "return-predictor evaluate: %s\n", error.message);
        return EXIT_FAILED;
    }
    return leakage && o.strict ? EXIT_LEAKAGE : EXIT_DONE;
}
