/* The report as one page that needs nothing else: no script, no font, no network. It follows the
 * reader's dark or light theme and a phone's width. */
#include <math.h>
#include <stdio.h>

#include "base/date.h"
#include "report/report.h"
#include "report/report_figures.h"

static const char style[] =
    ":root{color-scheme:light dark;--page:#f7f8fa;--card:#fff;--ink:#1c2430;--soft:#5b6676;"
    "--rule:#dfe3e9;--a:#1f6fd0;--b:#c2570c;--c:#7a8594;--good:#1a7f4b;--bad:#c02636}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#11151b;--card:#1a2029;--ink:#e8ecf2;"
    "--soft:#a3aebd;--rule:#313a47;--a:#6aa9f4;--b:#f39a55;--c:#8b97a7;--good:#54c78c;"
    "--bad:#ff7a85}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--page);color:var(--ink);"
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n"
    "main{max-width:1180px;margin:0 auto;padding:20px 16px 48px}\n"
    "h1{font-size:1rem;font-weight:600;color:var(--soft);margin:0 0 12px}\n"
    "h2{font-size:1.2rem;margin:36px 0 12px}h3{font-size:1rem;margin:0 0 6px}\n"
    ".verdict{background:var(--card);border:1px solid var(--rule);border-left:6px solid var(--c);"
    "border-radius:8px;padding:16px 18px}\n"
    ".verdict.skill{border-left-color:var(--good)}.verdict.leakage{border-left-color:var(--bad)}\n"
    ".verdict p{margin:0}.verdict .sentence{font-size:1.35rem;line-height:1.35;font-weight:600}\n"
    ".verdict .comparison{margin-top:8px;color:var(--soft)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(158px,1fr));gap:12px;"
    "margin:16px 0 0}\n"
    ".tiles div{background:var(--card);border:1px solid var(--rule);border-radius:8px;"
    "padding:12px 14px}\n"
    ".tiles dt{color:var(--soft);font-size:.85rem}.tiles dd{margin:0;font-size:1.4rem;"
    "font-weight:600;font-variant-numeric:tabular-nums}\n"
    ".tiles small{display:block;font-size:.8rem;font-weight:400;color:var(--soft)}\n"
    ".scroll{overflow-x:auto;background:var(--card);border:1px solid var(--rule);"
    "border-radius:8px}\n"
    "table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-top:1px solid var(--rule)}\n"
    "thead th{border-top:0;color:var(--soft);font-weight:600}\n"
    "th:first-child{text-align:left;font-weight:500}\n"
    "td.meaning{text-align:left;white-space:normal;min-width:260px;color:var(--soft)}\n"
    "tr.model th,tr.model td{font-weight:700}.raised{color:var(--bad);font-weight:700}\n"
    ".figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));"
    "gap:16px}\n"
    "figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;"
    "padding:14px}\n"
    "svg{display:block;width:100%;height:auto}svg text{font-size:11px;fill:var(--soft)}\n"
    ".grid{stroke:var(--rule);stroke-width:1;fill:none}\n"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}.line.thin{stroke-width:1}\n"
    ".dashed{stroke-dasharray:5 4}\n"
    ".fill-a{fill:var(--a)}.fill-b{fill:var(--b)}\n"
    ".stroke-a{stroke:var(--a)}.stroke-b{stroke:var(--b)}.stroke-c{stroke:var(--c)}\n"
    "figcaption{font-size:.85rem;color:var(--soft);margin-top:8px}figcaption p{margin:4px 0 0}\n"
    ".key{display:inline-block;margin-right:14px}.key i{display:inline-block;width:14px;height:0;"
    "border-top:3px solid var(--c);margin-right:6px;vertical-align:middle}\n"
    ".key i.dashed{border-top-style:dashed}\n"
    ".key i.fill-a{height:10px;border:0;background:var(--a)}"
    ".key i.fill-b{height:10px;width:10px;border:0;border-radius:5px;background:var(--b)}\n"
    ".key i.stroke-a{border-top-color:var(--a)}.key i.stroke-b{border-top-color:var(--b)}\n"
    "@media(max-width:600px){svg text{font-size:13px}th,td{padding:6px 7px}"
    "table{font-size:.84rem}.verdict .sentence{font-size:1.15rem}}\n"
    "footer{margin-top:36px;color:var(--soft);font-size:.85rem;overflow-wrap:anywhere}\n";

static void verdict_box(text *out, const report *r) {
    const verdict *verdict = &r->verdict;
    const char *class = verdict->leakage                 ? "leakage"
                        : verdict->kind == VERDICT_SKILL ? "skill"
                                                         : "none";
    text_printf(out, "<div class=\"verdict %s\"><p class=\"sentence\">", class);
    text_append_html(out, verdict->sentence);
    text_append_string(out, "</p><p class=\"comparison\">");
    text_append_html(out, verdict->comparison);
    text_append_string(out, "</p></div>\n");
}

static void tile(text *out, const char *label, const char *value, const char *beside) {
    text_printf(out, "<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>\n", label, value, beside);
}

static void statistic_tile(text *out, const report *r, statistic which, const char *beside) {
    char value[STATISTIC_TEXT], range[2 * STATISTIC_TEXT + 8];
    statistic_format(value, which, r->model_statistics[0].value[which]);
    if (!beside) {
        char low[STATISTIC_TEXT], high[STATISTIC_TEXT];
        statistic_format(low, which, r->intervals.value[which].low);
        statistic_format(high, which, r->intervals.value[which].high);
        snprintf(range, sizeof range, "[%s, %s]", low, high);
        beside = isnan(r->intervals.value[which].low) ? "too few days for an interval" : range;
    }
    tile(out, statistic_table[which].label, value, beside);
}

static void tiles(text *out, const report *r) {
    const double *v = r->model_statistics[0].value;
    char beside[96], first[STATISTIC_TEXT], second[STATISTIC_TEXT];
    text_append_string(out, "<dl class=\"tiles\">\n");
    statistic_tile(out, r, STATISTIC_R2_ZERO, NULL);
    statistic_format(first, STATISTIC_DIRECTION_SE, v[STATISTIC_DIRECTION_SE]);
    statistic_format(second, STATISTIC_BASE_RATE, v[STATISTIC_BASE_RATE]);
    snprintf(beside, sizeof beside, "+- %s; always up: %s", first, second);
    statistic_tile(out, r, STATISTIC_DIRECTION, beside);
    statistic_format(first, STATISTIC_IC_T, v[STATISTIC_IC_T]);
    statistic_format(second, STATISTIC_RANK_IC, v[STATISTIC_RANK_IC]);
    snprintf(beside, sizeof beside, "t %s; rank IC %s", first, second);
    statistic_tile(out, r, STATISTIC_IC, beside);
    statistic_tile(out, r, STATISTIC_SHARPE_NET, NULL);
    if (r->metadata->calibrated) {
        char value[STATISTIC_TEXT];
        snprintf(value, sizeof value, "%.1f%%", 100 * r->coverage.share[0]);
        snprintf(beside, sizeof beside, "promised 80%%; of 95%%: %.1f%%",
                 100 * r->coverage.share[1]);
        tile(out, "Inside the 80% interval", value, beside);
    }
    text_append_string(out, "</dl>\n");
}

static void cell(text *out, statistic which, double value) {
    char text_value[STATISTIC_TEXT];
    statistic_format(text_value, which, value);
    text_printf(out, "<td>%s</td>", text_value);
}

static void model_table(text *out, const report *r) {
    bool seeds = r->model_count > 1;
    text_printf(
        out,
        "<h2>The model</h2><div class=\"scroll\"><table><thead><tr><th>LSTM</th><th>value"
        "</th><th>95%% from</th><th>to</th>%s<td class=\"meaning\">meaning</td></tr></thead>"
        "<tbody>\n",
        seeds ? "<th>mean of seeds</th><th>sd of seeds</th>" : "");
    for (int s = 0; s < STATISTIC_COUNT; s++) {
        text_printf(out, "<tr><th>%s</th>", statistic_table[s].label);
        cell(out, (statistic)s, r->model_statistics[0].value[s]);
        cell(out, (statistic)s, r->intervals.value[s].low);
        cell(out, (statistic)s, r->intervals.value[s].high);
        if (seeds) {
            cell(out, (statistic)s, r->seed_mean.value[s]);
            cell(out, (statistic)s, r->seed_deviation.value[s]);
        }
        text_append_string(out, "<td class=\"meaning\">");
        text_append_html(out, statistic_table[s].meaning);
        text_append_string(out, "</td></tr>\n");
    }
    text_append_string(out, "</tbody></table></div>\n");
}

static void baseline_table(text *out, const report *r) {
    static const statistic columns[] = {
        STATISTIC_R2_ZERO,    STATISTIC_DIRECTION, STATISTIC_IC,  STATISTIC_RANK_IC,
        STATISTIC_SHARPE_NET, STATISTIC_MSE,       STATISTIC_MAE,
    };
    enum { COLUMNS = sizeof columns / sizeof *columns };
    text_append_string(out, "<h2>Against the baselines</h2><div class=\"scroll\"><table><thead><tr>"
                            "<th>forecast</th>");
    for (int c = 0; c < COLUMNS; c++) {
        text_printf(out, "<th>%s</th>", statistic_table[columns[c]].label);
    }
    text_append_string(out, "</tr></thead><tbody>\n");
    for (int b = -1; b < BASELINE_COUNT; b++) {
        const statistics *line = b < 0 ? &r->model_statistics[0] : &r->baseline_statistics[b];
        text_printf(out, "<tr%s><th>%s</th>", b < 0 ? " class=\"model\"" : "",
                    b < 0 ? "LSTM" : baseline_label[b]);
        for (int c = 0; c < COLUMNS; c++) {
            cell(out, columns[c], line->value[columns[c]]);
        }
        text_append_string(out, "</tr>\n");
    }
    text_append_string(out, "</tbody></table></div>\n");
}

static void alarm_cell(text *out, bool raised, bool checked) {
    text_printf(out, "<td%s>%s</td></tr>\n", raised ? " class=\"raised\"" : "",
                raised    ? "ALARM"
                : checked ? "quiet"
                          : "other files");
}

static void alarm_table(text *out, const report *r) {
    text_append_string(out,
                       "<h2>Alarms: too good to be true?</h2><div class=\"scroll\"><table><thead>"
                       "<tr><th>statistic</th><th>value</th><th>limit</th><th>alarm</th></tr>"
                       "</thead><tbody>\n");
    for (int i = 0; i < ALARM_SCALER; i++) {
        const alarm *alarm = &r->verdict.alarms[i];
        text_printf(out, "<tr><th>%s</th>", alarm->label);
        cell(out, alarm->statistic, alarm->value);
        cell(out, alarm->statistic, alarm->limit);
        alarm_cell(out, alarm->raised, true);
    }
    text_append_string(out,
                       "<tr><th>scaler, fitted again on the training rows</th><td></td><td></td>");
    alarm_cell(out, r->audit.scaler_differs, r->audit.checked);
    text_append_string(out, "<tr><th>split, found again by date</th><td></td><td></td>");
    alarm_cell(out, r->audit.split_differs, r->audit.checked);
    text_append_string(out, "</tbody></table></div>\n");
}

static void footer(text *out, const report *r, const char *provenance) {
    char trained[DATE_SIZE], first[DATE_SIZE], last[DATE_SIZE];
    date_format(trained, r->metadata->train_last_date);
    date_format(first, r->panel.day_date[0]);
    date_format(last, r->panel.day_date[r->panel.days - 1]);
    text_printf(
        out,
        "<footer><p>Tested on %lld windows of %d tickers on %lld days, %s to %s; trained up "
        "to %s. Intervals: 2.5%% and 97.5%% quantiles of 2,000 draws of a circular bootstrap "
        "of 20-day blocks.</p>\n<p>",
        (long long)r->panel.rows, r->dataset->market->count, (long long)r->panel.days, first, last,
        trained);
    report_price_notes(out, r);
    text_append_string(out, "</p>\n<p>Price files sha256 ");
    text_append_html(out, r->dataset->market->sha256);
    text_append_string(out, "</p>\n<p>Checkpoints: ");
    for (int32_t i = 0; i < r->model_count; i++) {
        text_append_string(out, i > 0 ? ", " : "");
        text_append_html(out, r->models[i].checkpoint);
        text_printf(out, " (%s)", r->models[i].version);
    }
    text_append_string(out, "</p>\n<p>");
    text_append_html(out, provenance);
    text_append_string(out, "</p></footer>\n");
}

bool report_html(text *out, const report *report, const char *provenance, error *error) {
    text_append_string(out,
                       "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                       "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
                       "<title>return-predictor report</title>\n<style>\n");
    text_append_string(out, style);
    text_append_string(out, "</style></head><body><main>\n<h1>return-predictor: next-day returns, "
                            "out of sample</h1>\n");
    verdict_box(out, report);
    tiles(out, report);
    baseline_table(out, report);
    alarm_table(out, report);
    text_append_string(out, "<h2>Figures</h2><div class=\"figures\">\n");
    if (!report_figures(out, report, error)) {
        return false;
    }
    text_append_string(out, "</div>\n");
    model_table(out, report);
    footer(out, report, provenance);
    text_append_string(out, "</main></body></html>\n");
    return true;
}
