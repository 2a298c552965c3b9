#include "report/statistics.h"

#include <math.h>
#include <stdio.h>

const statistic_description statistic_table[STATISTIC_COUNT] = {
    [STATISTIC_MSE] = {"mse", "MSE", "mean squared error of the next-day return", UNIT_TINY, true},
    [STATISTIC_MAE] = {"mae", "MAE", "mean absolute error", UNIT_TINY, true},
    [STATISTIC_R2_ZERO] = {"r2_zero", "R2 against zero",
                           "1 - sum of squared errors / sum of squared returns", UNIT_PERCENT,
                           true},
    [STATISTIC_R2_ZERO_T] = {"r2_zero_t", "R2 against zero, t",
                             "t of the daily gain in summed squared error over the zero forecast "
                             "(Diebold and Mariano), Newey-West variance, 5 lags",
                             UNIT_NUMBER, false},
    [STATISTIC_R2_TRAIN_MEAN] = {"r2_train_mean", "R2 against the train mean",
                                 "1 - sum of squared errors / sum of squared deviations from the "
                                 "mean return of the training windows",
                                 UNIT_PERCENT, true},
    [STATISTIC_R2_TRAIN_MEAN_T] = {"r2_train_mean_t", "R2 against train mean, t",
                                   "the same over the train mean", UNIT_NUMBER, false},
    [STATISTIC_DIRECTION] = {"direction", "Direction right",
                             "share of rows where (forecast > 0) equals (return > 0); not defined "
                             "for a forecast that is always 0",
                             UNIT_SHARE, true},
    [STATISTIC_DIRECTION_SE] = {"direction_se", "Direction, standard error",
                                "clustered by day: the stocks of one day move together", UNIT_SHARE,
                                false},
    [STATISTIC_BASE_RATE] = {"base_rate", "Base rate: always up", "share of rows with return > 0",
                             UNIT_SHARE, true},
    [STATISTIC_IC] = {"ic", "IC",
                      "mean over days of the Pearson correlation between forecast and return",
                      UNIT_NUMBER, true},
    [STATISTIC_ICIR] = {"icir", "ICIR", "mean daily IC / its standard deviation (ddof 1)",
                        UNIT_NUMBER, true},
    [STATISTIC_IC_T] = {"ic_t", "IC, t",
                        "t of the mean daily IC with a Newey-West variance, 5 lags", UNIT_NUMBER,
                        false},
    [STATISTIC_RANK_IC] = {"rank_ic", "Rank IC", "the same with Spearman's rank correlation",
                           UNIT_NUMBER, true},
    [STATISTIC_RANK_ICIR] = {"rank_icir", "Rank ICIR",
                             "mean daily rank IC / its standard deviation (ddof 1)", UNIT_NUMBER,
                             true},
    [STATISTIC_RANK_IC_T] = {"rank_ic_t", "Rank IC, t",
                             "t of the mean daily rank IC with a Newey-West variance, 5 lags",
                             UNIT_NUMBER, false},
    [STATISTIC_RETURN_GROSS] = {"return_gross", "Long-short a day, gross",
                                "mean tradeable return of the 10 highest forecasts minus that of "
                                "the 10 lowest, each day",
                                UNIT_PERCENT, true},
    [STATISTIC_RETURN_NET] = {"return_net", "Long-short a day, net",
                              "after 5 basis points per unit of turnover", UNIT_PERCENT, true},
    [STATISTIC_SHARPE_GROSS] = {"sharpe_gross", "Sharpe ratio, gross",
                                "mean / standard deviation (ddof 1) of the daily returns, times "
                                "the square root of 252",
                                UNIT_NUMBER, true},
    [STATISTIC_SHARPE_NET] = {"sharpe_net", "Sharpe ratio, net", "the same after costs",
                              UNIT_NUMBER, true},
    [STATISTIC_TURNOVER] = {"turnover", "Turnover a day",
                            "sum of the absolute changes of the weights (each side sums to 1, so "
                            "4 replaces everything)",
                            UNIT_NUMBER, true},
    [STATISTIC_DRAWDOWN_GROSS] = {"drawdown_gross", "Worst drawdown, gross",
                                  "largest fall of the compounded long-short curve from its peak",
                                  UNIT_SHARE, false},
    [STATISTIC_DRAWDOWN_NET] = {"drawdown_net", "Worst drawdown, net", "the same after costs",
                                UNIT_SHARE, false},
};

void statistic_format(char text[STATISTIC_TEXT], statistic which, double value) {
    if (isnan(value)) {
        snprintf(text, STATISTIC_TEXT, "-");
        return;
    }
    switch (statistic_table[which].unit) {
    case UNIT_NUMBER:
        snprintf(text, STATISTIC_TEXT, "%.3f", value);
        break;
    case UNIT_SHARE:
        snprintf(text, STATISTIC_TEXT, "%.2f%%", 100 * value);
        break;
    case UNIT_PERCENT:
        snprintf(text, STATISTIC_TEXT, "%+.3f%%", 100 * value);
        break;
    case UNIT_TINY:
        snprintf(text, STATISTIC_TEXT, "%.4e", value);
        break;
    }
}
