#include "base/date.h"

#include <stdio.h>

enum { DAYS_TO_1970 = 719468 }; /* from 0000-03-01 */

/* The year is taken to begin in March, so that the leap day is its last; 400 years are an era of
 * 146097 days. */
static int32_t days_from(int32_t year, int32_t month, int32_t day) {
    int32_t y = year - (month <= 2), m = (month + 9) % 12;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - DAYS_TO_1970;
}

static void split(int32_t days, int32_t *year, int32_t *month, int32_t *day) {
    int32_t z = days + DAYS_TO_1970, era = z / 146097, of_era = z % 146097;
    int32_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int32_t of_year = of_era - (365 * y + y / 4 - y / 100), m = (5 * of_year + 2) / 153;
    *day = of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = era * 400 + y + (*month <= 2);
}

void date_format(char text[DATE_SIZE], int32_t days) {
    int32_t year, month, day;
    split(days, &year, &month, &day);
    snprintf(text, DATE_SIZE, "%04u-%02u-%02u", (unsigned)year % 10000, (unsigned)month % 100,
             (unsigned)day % 100);
}

bool date_from_civil(int32_t *days, int32_t year, int32_t month, int32_t day) {
    if (year < 1 || year > 9999 || month < 1 || month > 12 || day < 1 || day > 31) {
        return false;
    }
    int32_t y, m, d, found = days_from(year, month, day);
    split(found, &y, &m, &d); /* 2021-02-30 comes back as another day */
    if (y != year || m != month || d != day) {
        return false;
    }
    *days = found;
    return true;
}

bool date_parse(const char *text, int32_t *days) {
    int32_t part[3] = {0, 0, 0};
    static const int widths[3] = {4, 2, 2};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < widths[i]; k++, text++) {
            if (*text < '0' || *text > '9') {
                return false;
            }
            part[i] = part[i] * 10 + (*text - '0');
        }
        if (*text++ != (i < 2 ? '-' : '\0')) {
            return false;
        }
    }
    return date_from_civil(days, part[0], part[1], part[2]);
}
