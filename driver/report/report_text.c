/* The report for a terminal: 100 columns, verdict first. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/date.h"
#include "report/report.h"

enum { COLUMNS_OF_TEXT = 100 };

/* Words of `string` in lines of at most 100 columns. */
static void paragraph(text *out, const char *string) {
    size_t column = 0;
    while (*string) {
        size_t length = strcspn(string, " ");
        if (column > 0) {
            bool fits = column + 1 + length <= COLUMNS_OF_TEXT;
            text_append_string(out, fits ? " " : "\n");
            column = fits ? column + 1 : 0;
        }
        text_append(out, string, length);
        column += length;
        string += length + (string[length] == ' ');
    }
    text_append_string(out, "\n");
}

void report_price_notes(text *out, const report *r) {
    const market *market = r->dataset->market;
    const struct {
        int64_t count;
        const char *what;
    } notes[] = {
        {market->bad_rows, "bad rows left out"},
        {market->tickers_dropped, "tickers with too few days left out"},
        {market->rows_dropped, "rows dropped on days that most tickers lack"},
        {market->days_missing, "days missing that most tickers have"},
        {market->warnings, "warnings"},
    };
    const char *before = "Price files: ";
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        if (notes[i].count > 0) {
            text_printf(out, "%s%lld %s", before, (long long)notes[i].count, notes[i].what);
            before = ", ";
        }
    }
    if (before[0] == ',') {
        text_printf(out, "; %lld rows read.\n", (long long)market->rows_read);
    }
}

static void period(text *out, const report *r) {
    char trained[DATE_SIZE], first[DATE_SIZE], last[DATE_SIZE];
    date_format(trained, r->metadata->train_last_date);
    date_format(first, r->panel.day_date[0]);
    date_format(last, r->panel.day_date[r->panel.days - 1]);
    text_printf(out,
                "Tested on %lld windows of %d tickers on %lld days, %s to %s; trained up to %s.\n",
                (long long)r->panel.rows, r->dataset->market->count, (long long)r->panel.days,
                first, last, trained);
    report_price_notes(out, r);
}

static void model_table(text *out, const report *r) {
    bool seeds = r->model_count > 1;
    text_printf(out, "\n%-27s %12s   %-26s%s\n", "LSTM", "value", "95% interval",
                seeds ? "  seeds: mean +- sd" : "");
    for (statistic s = 0; s < STATISTIC_COUNT; s++) {
        char value[STATISTIC_TEXT], low[STATISTIC_TEXT], high[STATISTIC_TEXT], range[64] = "";
        interval around = r->intervals.value[s];
        statistic_format(value, s, r->model_statistics[0].value[s]);
        if (!isnan(around.low)) {
            statistic_format(low, s, around.low);
            statistic_format(high, s, around.high);
            snprintf(range, sizeof range, "[%s, %s]", low, high);
        }
        text_printf(out, "%-27s %12s   %-26s", statistic_table[s].label, value, range);
        if (seeds) {
            statistic_format(low, s, r->seed_mean.value[s]);
            statistic_format(high, s, r->seed_deviation.value[s]);
            text_printf(out, "  %s +- %s", low, high[0] == '+' ? high + 1 : high);
        }
        text_append_string(out, "\n");
    }
}

static void baseline_table(text *out, const report *r) {
    static const statistic columns[] = {STATISTIC_MSE, STATISTIC_R2_ZERO, STATISTIC_DIRECTION,
                                        STATISTIC_IC,  STATISTIC_RANK_IC, STATISTIC_SHARPE_NET};
    enum { COLUMNS = sizeof columns / sizeof *columns };
    static const char *const heads[COLUMNS] = {"MSE", "R2 zero", "direction",
                                               "IC",  "rank IC", "Sharpe net"};
    text_printf(out, "\n%-27s", "Against the baselines");
    for (int c = 0; c < COLUMNS; c++) {
        text_printf(out, " %11s", heads[c]);
    }
    for (int b = -1; b < BASELINE_COUNT; b++) {
        const statistics *line = b < 0 ? &r->model_statistics[0] : &r->baseline_statistics[b];
        text_printf(out, "\n%-27s", b < 0 ? "LSTM" : baseline_label[b]);
        for (int c = 0; c < COLUMNS; c++) {
            char value[STATISTIC_TEXT];
            statistic_format(value, columns[c], line->value[columns[c]]);
            text_printf(out, " %11s", value);
        }
    }
    text_append_string(out, "\n");
}

static void coverage_lines(text *out, const report *r) {
    if (!r->metadata->calibrated) {
        text_append_string(out, "\nPrediction intervals: none were calibrated.\n");
        return;
    }
    text_printf(out, "\nPrediction intervals (split-conformal on %s windows, scaled by vol20)\n",
                r->metadata->intervals.held_out ? "validation" : "the last tenth of the training");
    for (int level = 0; level < CONFORMAL_LEVELS; level++) {
        text_printf(
            out,
            "  promised %.0f%%: measured %.1f%% +- %.1f%% of the returns inside, mean width "
            "%.2f%%\n",
            100 * conformal_level[level], 100 * r->coverage.share[level],
            100 * r->coverage.error[level], 100 * r->coverage.mean_width[level]);
    }
}

static void alarm_lines(text *out, const report *r) {
    text_append_string(out, "\nAlarms (possible leakage)\n");
    for (int i = 0; i < ALARM_SCALER; i++) {
        const alarm *alarm = &r->verdict.alarms[i];
        char value[STATISTIC_TEXT], limit[STATISTIC_TEXT];
        statistic_format(value, alarm->statistic, alarm->value);
        statistic_format(limit, alarm->statistic, alarm->limit);
        text_printf(out, "  %-20s %10s, limit %8s  %s\n", alarm->label, value, limit,
                    alarm->raised ? "ALARM" : "quiet");
    }
    for (int i = ALARM_SCALER; i < ALARM_COUNT; i++) {
        if (r->verdict.alarms[i].raised) {
            text_printf(out, "  ALARM: %s\n", r->verdict.alarms[i].label);
        }
    }
    text_append_string(out, r->audit.checked
                                ? "  scaler and split were refitted on the training days\n"
                                : "  scaler and split can't be refitted: other price files than "
                                  "those of training\n");
}

void report_text(text *out, const report *report) {
    paragraph(out, report->verdict.sentence);
    paragraph(out, report->verdict.comparison);
    text_append_string(out, "\n");
    period(out, report);
    model_table(out, report);
    baseline_table(out, report);
    coverage_lines(out, report);
    alarm_lines(out, report);
}
