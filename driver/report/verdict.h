/* The report's first sentence, and the alarm that a result is too good to be true. */
#ifndef REPORT_VERDICT_H
#define REPORT_VERDICT_H

#include <stdbool.h>

#include "report/audit.h"
#include "report/bootstrap.h"

typedef enum verdict_kind {
    VERDICT_NO_SKILL, /* the zero forecast or the train mean may be as good */
    VERDICT_RANKING,  /* no smaller error, but the stocks are ranked better than by chance */
    VERDICT_SKILL     /* a smaller error than both, beyond chance */
} verdict_kind;

/* Harvey, Liu and Zhu (2016): after so many tries by so many people a t of 2 proves nothing. */
#define VERDICT_T 3.0

/* Signs of leakage. Daily stock returns are nearly unpredictable: statistics beyond these limits
 * have, so far, been mistakes in the data. */
enum { ALARM_R2, ALARM_DIRECTION, ALARM_IC, ALARM_SHARPE, ALARM_SCALER, ALARM_SPLIT, ALARM_COUNT };
typedef struct alarm {
    const char *key;          /* in JSON */
    const char *label;        /* for people */
    enum statistic statistic; /* STATISTIC_COUNT for those of the audit, which have no numbers */
    double limit;
    double value; /* of the worst model */
    bool raised;  /* value (for IC: its magnitude) > limit, or found by the audit */
} alarm;

typedef struct verdict {
    verdict_kind kind;
    alarm alarms[ALARM_COUNT];
    bool leakage; /* an alarm is raised */
    char sentence[640];
    char comparison[256]; /* against the best baseline */
} verdict;

typedef struct verdict_evidence {
    const statistics *model;    /* of the first model */
    const intervals *intervals; /* of the first model */
    const statistics *models;   /* [model_count] of all, the first included */
    int32_t model_count;
    const statistics *baselines; /* [BASELINE_COUNT] */
    struct audit audit;
} verdict_evidence;

void verdict_reach(verdict *out, const verdict_evidence *evidence);

const char *verdict_kind_name(verdict_kind kind); /* "no skill", "ranking skill", "skill" */

#endif
