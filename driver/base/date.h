/* Dates as days since 1970-01-01 (Gregorian), as everything here keeps them. */
#ifndef BASE_DATE_H
#define BASE_DATE_H

#include <stdbool.h>
#include <stdint.h>

enum { DATE_SIZE = 11 }; /* "2021-12-31" and its NUL */

/* Years 1..9999. */
void date_format(char text[DATE_SIZE], int32_t days);

/* Strict ISO 8601, "2021-12-31"; false when it is not a day of the calendar. */
bool date_parse(const char *text, int32_t *days);

/* False when there is no such day, or not in the years 1..9999. */
bool date_from_civil(int32_t *days, int32_t year, int32_t month, int32_t day);

#endif
