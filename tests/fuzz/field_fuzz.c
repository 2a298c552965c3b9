/* Numbers and dates, as price files and options spell them. The input is one line. */
#include <math.h>
#include <string.h>

#include "base/date.h"
#include "base/options.h"
#include "fuzz.h"
#include "market/field.h"

enum { FIELDS = 8, LINE_SIZE = 256 };

/* Ours is rounded as strtod's is. */
static void check_number(field field, char delimiter) {
    double value;
    if (field_number(&value, field, delimiter) != FIELD_OK) {
        return;
    }
    CLAIM(isfinite(value));
    char plain[LINE_SIZE];
    size_t length = 0;
    for (int32_t i = 0; i < field.length; i++) {
        if (!strchr("$,+", field.text[i]) || (i > 0 && strchr("eE", field.text[i - 1]))) {
            plain[length++] = field.text[i];
        }
    }
    plain[length] = '\0';
    CLAIM(strtod(plain, NULL) == value);
}

static void check_date(field field) {
    date_form form;
    char shown[FIELD_SHOWN_SIZE], text[DATE_SIZE];
    int32_t date, again;
    if (field_date(&date, &form, field) == FIELD_OK) {
        date_format(text, date);
        CLAIM(date_parse(text, &again) && again == date);
    }
    field_show(shown, field);
    CLAIM(strlen(shown) < sizeof shown);
}

static void check_whole(const char *line) {
    int32_t date;
    int64_t whole;
    uint64_t natural;
    double real;
    char text[DATE_SIZE], number[32];
    if (date_parse(line, &date)) {
        date_format(text, date);
        CLAIM(strcmp(text, line) == 0);
    }
    if (parse_int64(line, &whole) && whole >= 0) {
        CLAIM(parse_uint64(line, &natural) || line[0] == '-');
        snprintf(number, sizeof number, "%lld", (long long)whole);
        CLAIM(strtoll(line, NULL, 10) == strtoll(number, NULL, 10));
    }
    if (parse_double(line, &real)) {
        CLAIM(isfinite(real));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char line[LINE_SIZE];
    field fields[FIELDS];
    static const char delimiters[] = {',', ';', '\t'};
    if (size >= sizeof line) {
        return 0;
    }
    if (size > 0) {
        memcpy(line, data, size);
    }
    line[size] = '\0';
    for (size_t i = 0; i < sizeof delimiters; i++) {
        const int32_t count = field_split(fields, FIELDS, line, line + size, delimiters[i]);
        for (int32_t f = 0; f < count && f < FIELDS; f++) {
            CLAIM(fields[f].text >= line && fields[f].text + fields[f].length <= line + size);
            check_number(fields[f], delimiters[i]);
            check_date(fields[f]);
        }
    }
    check_whole(line);
    return 0;
}
