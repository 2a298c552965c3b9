/* The walk-forward report as text and as JSON: the report of a single model, and what only many
 * models can tell. */
#include <math.h>

#include "base/date.h"
#include "walk_forward/walk_report.h"

static void means_text(text *out, const walk_report *w) {
    static const statistic columns[] = {STATISTIC_R2_ZERO, STATISTIC_DIRECTION, STATISTIC_IC,
                                        STATISTIC_RANK_IC, STATISTIC_SHARPE_NET};
    for (int32_t rate = 0; rate < w->plan->options->rate_count; rate++) {
        if (w->seeds_of_rate[rate] == 0) {
            continue;
        }
        text_printf(out, "Mean forecast of %d seeds at learning rate %g:", w->seeds_of_rate[rate],
                    w->plan->options->rates[rate]);
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
            char value[STATISTIC_TEXT];
            statistic_format(value, columns[c], w->mean_of_seeds[rate].value[columns[c]]);
            text_printf(out, "%s %s %s", c ? "," : "", statistic_table[columns[c]].label, value);
        }
        text_append_string(out, "\n");
    }
}

/* "+0.012 +- 0.004", or "0.85" without a deviation; "-" where there is nothing to average. */
static void append_moments(text *out, int width, const moments *m, bool deviation) {
    char value[64] = "-";
    if (!isnan(moments_mean(m))) {
        const int used =
            snprintf(value, sizeof value, deviation ? "%+.3f" : "%.2f", moments_mean(m));
        if (deviation && !isnan(moments_deviation(m))) {
            snprintf(value + used, sizeof value - (size_t)used, " +- %.3f", moments_deviation(m));
        }
    }
    text_printf(out, " %*s", width, value);
}

static void windows_text(text *out, const walk_report *w) {
    int32_t positive = 0;
    text_printf(out, "\n%-8s %18s %18s %15s %15s\n", "Window", "IC, mean +- sd", "rank IC",
                "seeds agree", "refits agree");
    for (int32_t k = 0; k < w->plan->window_count; k++) {
        const walk_window_result *window = &w->windows[k];
        positive += moments_mean(&window->rank_ic) > 0;
        text_printf(out, "%-8s", w->plan->windows[k].name);
        append_moments(out, 18, &window->ic, true);
        append_moments(out, 18, &window->rank_ic, true);
        append_moments(out, 15, &window->seeds_agree, false);
        append_moments(out, 15, &window->refits_agree, false);
        text_append_string(out, "\n");
    }
    text_printf(out, "%-8s %18s %8d of %3d +", "all", "", positive, w->plan->window_count);
    append_moments(out, 16, &w->seeds_agree, false);
    append_moments(out, 15, &w->refits_agree, false);
    text_append_string(out, "\nAgreement: mean rank correlation of the forecasts of a day, between "
                            "seeds and between a model\nand the one before it.\n");
}

void walk_report_text(text *out, const walk_report *w) {
    report_text(out, &w->report);
    windows_text(out, w);
    means_text(out, w);
    for (int32_t i = 0; i < w->series_count; i++) {
        if (w->series[i].missing > 0) {
            text_printf(out, "Not judged: %s, without a model in %lld windows.\n",
                        w->series[i].name, (long long)w->series[i].missing);
        }
    }
}

static void write_date(json *json, const char *key, int32_t date) {
    char text[DATE_SIZE];
    date_format(text, date);
    json_string(json, key, text);
}

static void write_windows(json *json, const walk_report *w) {
    json_array(json, "windows");
    for (int32_t k = 0; k < w->plan->window_count; k++) {
        const walk_window *window = &w->plan->windows[k];
        const walk_window_result *result = &w->windows[k];
        json_object(json, NULL);
        json_string(json, "window", window->name);
        write_date(json, "train_first_date", window->dataset.train_first_date);
        write_date(json, "train_last_date", window->train_last_date);
        write_date(json, "test_first_date", window->test_first_date);
        write_date(json, "test_last_date", window->test_last_date);
        json_int(json, "train_windows", window->train_windows);
        json_int(json, "test_windows", window->test_windows);
        json_double(json, "ic", moments_mean(&result->ic));
        json_double(json, "ic_deviation", moments_deviation(&result->ic));
        json_double(json, "rank_ic", moments_mean(&result->rank_ic));
        json_double(json, "rank_ic_deviation", moments_deviation(&result->rank_ic));
        json_double(json, "seeds_agree", moments_mean(&result->seeds_agree));
        json_double(json, "refits_agree", moments_mean(&result->refits_agree));
        json_end(json);
    }
    json_end(json);
}

static void write_means(json *json, const walk_report *w) {
    json_array(json, "means_of_seeds");
    for (int32_t rate = 0; rate < w->plan->options->rate_count; rate++) {
        json_object(json, NULL);
        json_double(json, "learning_rate", w->plan->options->rates[rate]);
        json_int(json, "seeds", w->seeds_of_rate[rate]);
        for (int s = 0; w->seeds_of_rate[rate] > 0 && s < STATISTIC_COUNT; s++) {
            json_double(json, statistic_table[s].key, w->mean_of_seeds[rate].value[s]);
        }
        json_end(json);
    }
    json_end(json);
}

static void write_failures(json *json, const walk_plan *plan) {
    json_array(json, "failures");
    for (int64_t i = 0; i < plan->job_count; i++) {
        if (plan->jobs[i].failure.message[0]) {
            char name[WALK_NAME_SIZE];
            walk_job_name(name, plan, &plan->jobs[i]);
            json_object(json, NULL);
            json_string(json, "model", name);
            json_string(json, "reason", plan->jobs[i].failure.message);
            json_end(json);
        }
    }
    json_end(json);
}

void walk_report_json(json *json, const walk_report *w) {
    report_json(json, &w->report);
    json_double(json, "seeds_agree", moments_mean(&w->seeds_agree));
    json_double(json, "refits_agree", moments_mean(&w->refits_agree));
    write_windows(json, w);
    write_means(json, w);
    write_failures(json, w->plan);
}
