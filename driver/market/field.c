#include "market/field.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/date.h"

const char *const date_form_name[DATE_FORMS] = {"YYYY-MM-DD", "MM/DD/YYYY", "YYYYMMDD"};

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static field trimmed(const char *begin, const char *end) {
    while (begin < end && is_space(*begin))
        ++begin;
    while (begin < end && is_space(end[-1]))
        --end;
    return (field){begin, (int32_t)(end - begin)};
}

int32_t field_split(field *fields, int32_t capacity, const char *text, const char *end,
                    char delimiter) {
    int32_t count = 0;
    while (end > text && end[-1] == '\r')
        --end;
    for (const char *at = text;; ++at) {
        const char *begin = at;
        while (at < end && *at != delimiter && *at != '"')
            ++at;
        field found = trimmed(begin, at);
        if (at < end && *at == '"') {
            if (found.length > 0)
                return -1;
            const char *close = memchr(at + 1, '"', (size_t)(end - at - 1));
            if (!close)
                return -1;
            found = trimmed(at + 1, close);
            for (at = close + 1; at < end && *at != delimiter; ++at)
                if (!is_space(*at))
                    return -1;
        }
        if (count < capacity)
            fields[count] = found;
        ++count;
        if (at >= end)
            return count;
    }
}

bool field_equals(field field, const char *text) {
    size_t length = strlen(text);
    if ((size_t)field.length != length)
        return false;
    for (size_t i = 0; i < length; ++i) {
        char c = field.text[i];
        if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != text[i])
            return false;
    }
    return true;
}

static bool is_missing(field field) {
    static const char *const words[] = {"", "null", "nan", "n/a", "na", "none", "-"};
    for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
        if (field_equals(field, words[i]))
            return true;
    return false;
}

/* digits / 10^decimals, correctly rounded, for decimals <= 19. When the digits are exact in a
 * double, one division is. Otherwise an integer division gives at least 62 bits of the quotient,
 * its last bit stands for the whole remainder, and the conversion to double rounds. */
static double decimal_value(uint64_t digits, int decimals) {
    /* All exact in a double: 10^19 = 5^19 * 2^19. */
    static const double power[20] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
                                     1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};
    if (digits <= (uint64_t)1 << 53)
        return (double)digits / power[decimals];
    uint64_t divisor = (uint64_t)power[decimals];
    int digits_shift = __builtin_clzll(digits), divisor_shift = __builtin_clzll(divisor);
    divisor <<= divisor_shift;
    unsigned __int128 dividend = (unsigned __int128)(digits << digits_shift) << 63;
    uint64_t quotient = (uint64_t)(dividend / divisor);
    uint64_t rest = dividend % divisor != 0;
    return ldexp((double)(quotient | rest), divisor_shift - digits_shift - 63);
}

/* Digits and at most one point, nothing else, 19 digits at most: nearly every field. */
static bool plain_number(double *value, field field) {
    uint64_t digits = 0;
    int32_t point = -1;
    for (int32_t i = 0; i < field.length; ++i) {
        char c = field.text[i];
        if (is_digit(c))
            digits = digits * 10 + (uint64_t)(c - '0');
        else if (c == '.' && point < 0)
            point = i;
        else
            return false;
    }
    int32_t count = field.length - (point >= 0);
    if (count < 1 || count > 19)
        return false;
    *value = decimal_value(digits, point >= 0 ? field.length - 1 - point : 0);
    return true;
}

/* Every other spelling: checked and copied without '$' and commas, then read by strtod. */
static field_state spelled_number(double *value, field field, char delimiter) {
    char plain[64];
    int32_t length = 0, i = 0, since_comma = -1, whole = 0, decimals = 0;
    if (field.length >= (int32_t)sizeof plain)
        return FIELD_BAD;
    for (;
         i < field.length && (field.text[i] == '-' || field.text[i] == '+' || field.text[i] == '$');
         ++i) {
        if (field.text[i] == '-')
            plain[length++] = '-';
        if (i >= 2 || (i == 1 && (field.text[0] == '$') == (field.text[1] == '$')))
            return FIELD_BAD;
    }
    for (; i < field.length && (is_digit(field.text[i]) || field.text[i] == ','); ++i) {
        if (field.text[i] == ',') {
            bool in_place = since_comma < 0 ? whole >= 1 && whole <= 3 : since_comma == 3;
            if (!in_place || delimiter == ';')
                return FIELD_BAD;
            since_comma = 0;
            continue;
        }
        plain[length++] = field.text[i];
        ++whole;
        since_comma += since_comma >= 0;
    }
    if (since_comma >= 0 && since_comma != 3)
        return FIELD_BAD;
    if (i < field.length && field.text[i] == '.') {
        plain[length++] = field.text[i++];
        for (; i < field.length && is_digit(field.text[i]); ++i, ++decimals)
            plain[length++] = field.text[i];
    }
    if (whole + decimals == 0)
        return FIELD_BAD;
    if (i < field.length && (field.text[i] == 'e' || field.text[i] == 'E')) {
        plain[length++] = field.text[i++];
        if (i < field.length && (field.text[i] == '-' || field.text[i] == '+'))
            plain[length++] = field.text[i++];
        if (i == field.length)
            return FIELD_BAD;
        for (; i < field.length && is_digit(field.text[i]); ++i)
            plain[length++] = field.text[i];
    }
    if (i < field.length)
        return FIELD_BAD;
    plain[length] = '\0';
    *value = strtod(plain, NULL);
    return isfinite(*value) ? FIELD_OK : FIELD_BAD;
}

field_state field_number(double *value, field field, char delimiter) {
    if (plain_number(value, field))
        return FIELD_OK;
    return is_missing(field) ? FIELD_EMPTY : spelled_number(value, field, delimiter);
}

/* Reads least..most digits at *at. */
static bool read_digits(field field, int32_t *at, int least, int most, int32_t *value) {
    int count = 0;
    *value = 0;
    while (*at < field.length && count < most && is_digit(field.text[*at])) {
        *value = *value * 10 + (field.text[(*at)++] - '0');
        ++count;
    }
    return count >= least;
}

static bool skip(field field, int32_t *at, char c) {
    return *at < field.length && field.text[*at] == c && ++*at;
}

static bool is_time(field field, int32_t at) {
    if (at == field.length)
        return true;
    if (field.text[at] != 'T' && field.text[at] != ' ')
        return false;
    for (int32_t i = at + 1; i < field.length; ++i)
        if (!is_digit(field.text[i]) && !strchr(":.+-Z", field.text[i]))
            return false;
    return at + 1 < field.length;
}

static bool parse_date(int32_t *date, date_form *form, field field) {
    int32_t at = 0, year, month, day;
    bool ok;
    if (field.length >= 10 && (field.text[4] == '-' || field.text[4] == '/')) {
        *form = DATE_ISO;
        ok = read_digits(field, &at, 4, 4, &year) && skip(field, &at, field.text[4]) &&
             read_digits(field, &at, 2, 2, &month) && skip(field, &at, field.text[4]) &&
             read_digits(field, &at, 2, 2, &day) && is_time(field, at);
    } else if (memchr(field.text, '/', (size_t)field.length)) {
        *form = DATE_US;
        ok = read_digits(field, &at, 1, 2, &month) && skip(field, &at, '/') &&
             read_digits(field, &at, 1, 2, &day) && skip(field, &at, '/') &&
             read_digits(field, &at, 4, 4, &year) && at == field.length;
    } else {
        *form = DATE_COMPACT;
        ok = read_digits(field, &at, 4, 4, &year) && read_digits(field, &at, 2, 2, &month) &&
             read_digits(field, &at, 2, 2, &day) && at == field.length;
    }
    return ok && year >= 1800 && year <= 2200 && date_from_civil(date, year, month, day);
}

field_state field_date(int32_t *date, date_form *form, field field) {
    if (parse_date(date, form, field))
        return FIELD_OK;
    return is_missing(field) ? FIELD_EMPTY : FIELD_BAD;
}

date_order field_date_order(field field) {
    int32_t at = 0, first, second, year;
    if (!read_digits(field, &at, 1, 2, &first) || !skip(field, &at, '/') ||
        !read_digits(field, &at, 1, 2, &second) || !skip(field, &at, '/') ||
        !read_digits(field, &at, 4, 4, &year) || at != field.length)
        return ORDER_UNKNOWN;
    return first <= 12 && second > 12   ? ORDER_MONTH_FIRST
           : first > 12 && second <= 12 ? ORDER_DAY_FIRST
                                        : ORDER_UNKNOWN;
}

void field_show(char shown[FIELD_SHOWN_SIZE], field field) {
    enum { MOST = 40 };
    int32_t length = field.length < MOST ? field.length : MOST;
    for (int32_t i = 0; i < length; ++i)
        shown[i] = (char)(field.text[i] >= 0x20 && field.text[i] < 0x7f ? field.text[i] : '?');
    memcpy(shown + length, "...", 4);
    if (field.length <= MOST)
        shown[length] = '\0';
}
