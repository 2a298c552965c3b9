#include "report/verdict.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "report/baselines.h"
#include "report/series.h"

static const alarm alarm_limits[ALARM_COUNT] = {
    [ALARM_R2] = {"r2_zero", "R2 against zero", STATISTIC_R2_ZERO, 0.01, NAN, false},
    [ALARM_DIRECTION] = {"direction", "direction right", STATISTIC_DIRECTION, 0.54, NAN, false},
    [ALARM_IC] = {"ic", "mean daily IC", STATISTIC_IC, 0.05, NAN, false},
    [ALARM_SHARPE] = {"sharpe_net", "net Sharpe ratio", STATISTIC_SHARPE_NET, 2.0, NAN, false},
    [ALARM_SCALER] = {"scaler", "the scaler was not fitted on the training rows alone",
                      STATISTIC_COUNT, NAN, NAN, false},
    [ALARM_SPLIT] = {"split", "the split is not the chronological one", STATISTIC_COUNT, NAN, NAN,
                     false},
};

const char *verdict_kind_name(verdict_kind kind) {
    static const char *const names[] = {"no skill", "ranking skill", "skill"};
    return names[kind];
}

static double magnitude(const alarm *alarm, double value) {
    return alarm->statistic == STATISTIC_IC ? fabs(value) : value;
}

/* Any model may raise an alarm, not only the first. */
static void find_worst(alarm *alarm, const verdict_evidence *e) {
    for (int32_t m = 0; m < e->model_count; m++) {
        double value = e->models[m].value[alarm->statistic];
        if (isnan(alarm->value) || magnitude(alarm, value) > magnitude(alarm, alarm->value)) {
            alarm->value = value;
        }
    }
    alarm->raised = magnitude(alarm, alarm->value) > alarm->limit;
}

static void check_alarms(verdict *out, const verdict_evidence *e) {
    memcpy(out->alarms, alarm_limits, sizeof alarm_limits);
    for (int i = 0; i < ALARM_SCALER; i++) {
        find_worst(&out->alarms[i], e);
    }
    out->alarms[ALARM_SCALER].raised = e->audit.scaler_differs;
    out->alarms[ALARM_SPLIT].raised = e->audit.split_differs;
    for (int i = 0; i < ALARM_COUNT; i++) {
        out->leakage = out->leakage || out->alarms[i].raised;
    }
}

static moments over_models(const verdict_evidence *e, statistic which) {
    moments m = {0};
    for (int32_t i = 0; i < e->model_count; i++) {
        moments_add(&m, e->models[i].value[which]);
    }
    return m;
}

static bool beats(const verdict_evidence *e, statistic r2, statistic t) {
    return e->intervals->value[r2].low > 0 && e->model->value[t] > VERDICT_T;
}

/* Skill needs errors smaller than those of both plain forecasts, by the interval and by t (on a
 * short test period the bootstrap has few blocks and its intervals are too narrow), and seeds that
 * agree. */
static verdict_kind judge(const verdict_evidence *e) {
    moments r2 = over_models(e, STATISTIC_R2_ZERO), ic = over_models(e, STATISTIC_RANK_IC);
    if (beats(e, STATISTIC_R2_ZERO, STATISTIC_R2_ZERO_T) &&
        beats(e, STATISTIC_R2_TRAIN_MEAN, STATISTIC_R2_TRAIN_MEAN_T) && moments_mean(&r2) > 0) {
        return VERDICT_SKILL;
    }
    if (beats(e, STATISTIC_IC, STATISTIC_IC_T) &&
        beats(e, STATISTIC_RANK_IC, STATISTIC_RANK_IC_T) && moments_mean(&ic) > 0) {
        return VERDICT_RANKING;
    }
    return VERDICT_NO_SKILL;
}

static baseline best_baseline(const verdict_evidence *e) {
    baseline best = BASELINE_ZERO;
    for (int b = 0; b < BASELINE_COUNT; b++) {
        if (e->baselines[b].value[STATISTIC_MSE] < e->baselines[best].value[STATISTIC_MSE]) {
            best = (baseline)b;
        }
    }
    return best;
}

static void append(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void append(char *out, size_t size, const char *format, ...) {
    size_t used = strlen(out);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out + used, size - used, format, arguments);
    va_end(arguments);
}

static void append_excess(char *out, size_t size, const alarm *alarm) {
    bool percent = statistic_table[alarm->statistic].unit != UNIT_NUMBER;
    double scale = percent ? 100 : 1;
    append(out, size, "%s%s %.*f%s > %g%s", out[0] ? ", " : "", alarm->label, percent ? 1 : 3,
           magnitude(alarm, alarm->value) * scale, percent ? "%" : "", alarm->limit * scale,
           percent ? "%" : "");
}

/* "R2 against zero 3.7% > 1%, ... is too good to be true for daily returns; the scaler was ..." */
static void write_alarms(char *out, size_t size, const verdict *v) {
    out[0] = '\0';
    for (int i = 0; i < ALARM_SCALER; i++) {
        if (v->alarms[i].raised) {
            append_excess(out, size, &v->alarms[i]);
        }
    }
    if (out[0]) {
        append(out, size, " is too good to be true for daily returns");
    }
    for (int i = ALARM_SCALER; i < ALARM_COUNT; i++) {
        if (v->alarms[i].raised) {
            append(out, size, "%s%s", out[0] ? "; " : "", v->alarms[i].label);
        }
    }
}

/* "R2 is -0.49% [-1.10%, +0.12%]", and the seeds' mean and deviation when there are several. */
static void write_r2(char *out, size_t size, const verdict_evidence *e) {
    interval r2 = e->intervals->value[STATISTIC_R2_ZERO];
    if (isnan(e->model->value[STATISTIC_R2_ZERO])) {
        snprintf(out, size, "R2 is not defined, because no price moves");
        return;
    }
    snprintf(out, size, "R2 is %+.2f%%", 100 * e->model->value[STATISTIC_R2_ZERO]);
    if (!isnan(r2.low)) {
        append(out, size, " [%+.2f%%, %+.2f%%]", 100 * r2.low, 100 * r2.high);
    }
    if (e->model_count > 1) {
        moments seeds = over_models(e, STATISTIC_R2_ZERO);
        append(out, size, ", over %d seeds %+.2f%% +- %.2f%%", e->model_count,
               100 * moments_mean(&seeds), 100 * moments_deviation(&seeds));
    }
}

static void write_sentence(verdict *out, const verdict_evidence *e) {
    char r2[160], alarms[400];
    write_r2(r2, sizeof r2, e);
    write_alarms(alarms, sizeof alarms, out);
    char *to = out->sentence;
    size_t size = sizeof out->sentence;
    if (out->leakage) {
        bool skill = out->kind != VERDICT_NO_SKILL;
        snprintf(to, size,
                 "Possible leakage%s: %s. Find out %s before you believe that the LSTM's %s.",
                 skill ? ", or real skill" : "", alarms, skill ? "which" : "why", r2);
    } else if (out->kind == VERDICT_SKILL) {
        snprintf(to, size, "Skill: the LSTM's errors are smaller than the zero forecast's; its %s.",
                 r2);
    } else if (out->kind == VERDICT_RANKING) {
        snprintf(
            to, size,
            "Skill in ranking only: the mean daily IC is %+.3f (t %.1f), but the zero forecast "
            "is as good in squared error; the LSTM's %s.",
            e->model->value[STATISTIC_IC], e->model->value[STATISTIC_IC_T], r2);
    } else {
        interval around = e->intervals->value[STATISTIC_R2_ZERO];
        const char *zero = isnan(around.low) ? "there are too few test days to tell it from chance"
                           : around.high < 0 ? "the zero forecast is better"
                                             : "the zero forecast is as good";
        snprintf(to, size, "No skill: %s; the LSTM's %s.", zero, r2);
    }
}

void verdict_reach(verdict *out, const verdict_evidence *evidence) {
    memset(out, 0, sizeof *out);
    check_alarms(out, evidence);
    out->kind = judge(evidence);
    write_sentence(out, evidence);
    baseline best = best_baseline(evidence);
    char theirs[STATISTIC_TEXT], ours[STATISTIC_TEXT];
    statistic_format(theirs, STATISTIC_R2_ZERO, evidence->baselines[best].value[STATISTIC_R2_ZERO]);
    statistic_format(ours, STATISTIC_R2_ZERO, evidence->model->value[STATISTIC_R2_ZERO]);
    bool wins =
        evidence->baselines[best].value[STATISTIC_MSE] <= evidence->model->value[STATISTIC_MSE];
    snprintf(out->comparison, sizeof out->comparison, "%s: %s (R2 %s against the LSTM's %s).",
             wins ? "A baseline wins" : "The LSTM beats every baseline; the best of them",
             baseline_label[best], theirs, ours);
}
