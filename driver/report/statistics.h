/* The numbers of the report: one enum, one table with their names and meanings. Text, JSON and
 * page all walk the table, so a number cannot be in one and missing from another. */
#ifndef REPORT_STATISTICS_H
#define REPORT_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

typedef enum statistic {
    STATISTIC_MSE,
    STATISTIC_MAE,
    STATISTIC_R2_ZERO,
    STATISTIC_R2_ZERO_T,
    STATISTIC_R2_TRAIN_MEAN,
    STATISTIC_R2_TRAIN_MEAN_T,
    STATISTIC_DIRECTION,
    STATISTIC_DIRECTION_SE,
    STATISTIC_BASE_RATE,
    STATISTIC_IC,
    STATISTIC_ICIR,
    STATISTIC_IC_T,
    STATISTIC_RANK_IC,
    STATISTIC_RANK_ICIR,
    STATISTIC_RANK_IC_T,
    STATISTIC_RETURN_GROSS,
    STATISTIC_RETURN_NET,
    STATISTIC_SHARPE_GROSS,
    STATISTIC_SHARPE_NET,
    STATISTIC_TURNOVER,
    STATISTIC_DRAWDOWN_GROSS,
    STATISTIC_DRAWDOWN_NET,
    STATISTIC_COUNT
} statistic;

typedef enum statistic_unit { UNIT_NUMBER, UNIT_SHARE, UNIT_PERCENT, UNIT_TINY } statistic_unit;

typedef struct statistic_description {
    const char *key;     /* in JSON */
    const char *label;   /* for people */
    const char *meaning; /* the definition, in one line */
    statistic_unit unit;
    bool resampled; /* has a bootstrap interval; the others depend on the order of the days */
} statistic_description;

extern const statistic_description statistic_table[STATISTIC_COUNT];

/* NaN where a number is not defined (the direction of the zero forecast). */
typedef struct statistics {
    double value[STATISTIC_COUNT];
} statistics;

enum { STATISTIC_TEXT = 24 };

/* "+0.12%", "1.23e-04", "0.031" by the unit; "-" for NaN. */
void statistic_format(char text[STATISTIC_TEXT], statistic which, double value);

#endif
