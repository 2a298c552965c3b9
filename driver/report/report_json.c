/* The report for programs. Statistics are objects by key; a number that is not defined is null. */
#include <math.h>

#include "base/date.h"
#include "report/report.h"

static void write_date(json *json, const char *key, int32_t date) {
    char text[DATE_SIZE];
    date_format(text, date);
    json_string(json, key, text);
}

static void write_statistics(json *json, const char *key, const statistics *values) {
    json_object(json, key);
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        json_double(json, statistic_table[s].key, values->value[s]);
    }
    json_end(json);
}

static void write_intervals(json *json, const char *key, const intervals *around) {
    json_object(json, key);
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        if (statistic_table[s].resampled && !isnan(around->value[s].low)) {
            json_array(json, statistic_table[s].key);
            json_double(json, NULL, around->value[s].low);
            json_double(json, NULL, around->value[s].high);
            json_end(json);
        }
    }
    json_end(json);
}

static void write_verdict(json *json, const verdict *verdict, const audit *audit) {
    json_object(json, "verdict");
    json_string(json, "kind", verdict_kind_name(verdict->kind));
    json_bool(json, "skill", verdict->kind == VERDICT_SKILL);
    json_bool(json, "possible_leakage", verdict->leakage);
    json_string(json, "sentence", verdict->sentence);
    json_string(json, "comparison", verdict->comparison);
    json_array(json, "alarms");
    for (int i = 0; i < ALARM_COUNT; i++) {
        const alarm *alarm = &verdict->alarms[i];
        json_object(json, NULL);
        json_string(json, "name", alarm->key);
        json_string(json, "label", alarm->label);
        json_double(json, "value", alarm->value);
        json_double(json, "limit", alarm->limit);
        json_bool(json, "raised", alarm->raised);
        json_end(json);
    }
    json_end(json);
    json_bool(json, "scaler_and_split_checked", audit->checked);
    json_end(json);
}

static void write_data(json *json, const report *r) {
    const market *market = r->dataset->market;
    json_object(json, "data");
    json_int(json, "tickers", market->count);
    json_int(json, "price_rows", market->rows_read);
    json_int(json, "price_rows_dropped", market->rows_dropped);
    json_int(json, "bad_rows_left_out", market->bad_rows);
    json_int(json, "tickers_left_out", market->tickers_dropped);
    json_int(json, "ticker_days_missing", market->days_missing);
    json_int(json, "price_warnings", market->warnings);
    json_string(json, "sha256", market->sha256);
    json_string(json, "trained_on_sha256", r->metadata->sha256);
    write_date(json, "train_last_date", r->metadata->train_last_date);
    write_date(json, "test_first_date", r->panel.day_date[0]);
    write_date(json, "test_last_date", r->panel.day_date[r->panel.days - 1]);
    json_int(json, "test_days", r->panel.days);
    json_int(json, "test_windows", r->panel.rows);
    json_int(json, "embargo_days", r->metadata->options.embargo_days);
    json_double(json, "train_mean", r->baselines.train_mean);
    json_end(json);
}

static void write_models(json *json, const report *r) {
    json_array(json, "models");
    for (int32_t i = 0; i < r->model_count; i++) {
        json_object(json, NULL);
        json_string(json, "checkpoint", r->models[i].checkpoint);
        json_string(json, "model_version", r->models[i].version);
        json_string(json, "seed", r->models[i].seed);
        write_statistics(json, "statistics", &r->model_statistics[i]);
        if (i == 0) {
            write_intervals(json, "interval_95", &r->intervals);
        }
        json_end(json);
    }
    json_end(json);
    json_object(json, "seeds");
    json_int(json, "count", r->model_count);
    write_statistics(json, "mean", &r->seed_mean);
    write_statistics(json, "standard_deviation", &r->seed_deviation);
    json_end(json);
}

static void write_baselines(json *json, const report *r) {
    json_array(json, "baselines");
    for (int b = 0; b < BASELINE_COUNT; b++) {
        json_object(json, NULL);
        json_string(json, "name", baseline_key[b]);
        json_string(json, "label", baseline_label[b]);
        write_statistics(json, "statistics", &r->baseline_statistics[b]);
        write_intervals(json, "interval_95", &r->baseline_intervals[b]);
        json_end(json);
    }
    json_end(json);
}

static void write_coverage(json *json, const report *r) {
    json_array(json, "prediction_intervals");
    for (int level = 0; r->metadata->calibrated && level < CONFORMAL_LEVELS; level++) {
        json_object(json, NULL);
        json_double(json, "promised", conformal_level[level]);
        json_double(json, "measured", r->coverage.share[level]);
        json_double(json, "standard_error", r->coverage.error[level]);
        json_double(json, "mean_width", r->coverage.mean_width[level]);
        json_double(json, "quantile", r->metadata->intervals.quantile[level]);
        json_string(json, "calibrated_on",
                    r->metadata->intervals.held_out ? "validation" : "training");
        json_end(json);
    }
    json_end(json);
}

static void write_column(json *json, const char *key, const double *values, int64_t days) {
    json_array(json, key);
    for (int64_t day = 0; day < days; day++) {
        json_double(json, NULL, values[day]);
    }
    json_end(json);
}

static void write_days(json *json, const report *r) {
    json_object(json, "daily");
    json_array(json, "date");
    for (int64_t day = 0; day < r->panel.days; day++) {
        write_date(json, NULL, r->panel.day_date[day]);
    }
    json_end(json);
    write_column(json, "ic", r->daily.ic, r->daily.days);
    write_column(json, "rank_ic", r->daily.rank_ic, r->daily.days);
    write_column(json, "return_gross", r->daily.gross, r->daily.days);
    write_column(json, "return_net", r->daily.net, r->daily.days);
    write_column(json, "turnover", r->daily.turnover, r->daily.days);
    write_column(json, "equal_weight", r->daily.equal_weight, r->daily.days);
    json_end(json);
}

static void write_definitions(json *json) {
    json_object(json, "definitions");
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        json_string(json, statistic_table[s].key, statistic_table[s].meaning);
    }
    json_string(json, "interval_95",
                "2.5% and 97.5% quantiles over 2,000 draws of a circular bootstrap of 20-day "
                "blocks");
    json_end(json);
}

void report_json(json *json, const report *report) {
    write_verdict(json, &report->verdict, &report->audit);
    write_data(json, report);
    write_models(json, report);
    write_baselines(json, report);
    write_coverage(json, report);
    write_days(json, report);
    write_definitions(json);
}
