/* One field of a price file: where it lies, and what it says. */
#ifndef MARKET_FIELD_H
#define MARKET_FIELD_H

#include <stdbool.h>
#include <stdint.h>

/* Without surrounding spaces and quotes; borrowed from the file's text. */
typedef struct field {
    const char *text; /* [length], no NUL */
    int32_t length;
} field;

enum { FIELD_SHOWN_SIZE = 48 };

/* Splits the line [text, end) at `delimiter`, but not inside double quotes. At most `capacity`
 * fields are stored; returns how many there are, or -1 when a quote is not closed. */
int32_t field_split(field *fields, int32_t capacity, const char *text, const char *end,
                    char delimiter);

typedef enum field_state { FIELD_OK, FIELD_EMPTY, FIELD_BAD } field_state;

/* A decimal number, correctly rounded: "1234.5", "$1,234.50", "1.2e9". FIELD_EMPTY: nothing, null,
 * NaN, N/A. Commas are thousands separators and must stand where those stand; with a `delimiter`
 * of ';' they would as well be decimal commas, so there they are refused. */
field_state field_number(double *value, field field, char delimiter);

typedef enum date_form { DATE_ISO, DATE_US, DATE_COMPACT, DATE_FORMS } date_form;
extern const char *const date_form_name[DATE_FORMS];

/* 2014-01-02 (a time of day may follow), 01/02/2014 (month first), 20140102. */
field_state field_date(int32_t *date, date_form *form, field field);

typedef enum date_order { ORDER_UNKNOWN, ORDER_MONTH_FIRST, ORDER_DAY_FIRST } date_order;

/* Of a date with slashes and the year last: which of the two small numbers can only be the day. */
date_order field_date_order(field field);

bool field_equals(field field, const char *text);
/* The field as it can be printed: unprintable bytes as '?', cut after 40. */
void field_show(char shown[FIELD_SHOWN_SIZE], field field);

#endif
