#include "serve/sequence.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "dataset/dataset.h"

enum { EXACT_DIGITS = 19, POWERS = 46 };

static const double power_of_ten[POWERS] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25, 1e26, 1e27, 1e28, 1e29, 1e30, 1e31,
    1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38, 1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45};

typedef struct scanner {
    const char *at, *end;
} scanner;

static void skip_space(scanner *s) {
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) {
        s->at++;
    }
}

static bool take(scanner *s, char wanted) {
    skip_space(s);
    if (s->at == s->end || *s->at != wanted) {
        return false;
    }
    s->at++;
    return true;
}

static bool is_digit(const scanner *s) {
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

/* Appends digits to the mantissa; false when there are none or too many for 64 bits. */
static bool take_digits(scanner *s, uint64_t *mantissa, int *digits) {
    if (!is_digit(s)) {
        return false;
    }
    for (; is_digit(s); s->at++) {
        *mantissa = *mantissa * 10 + (uint64_t)(*s->at - '0');
        *digits += *mantissa != 0; /* leading zeros don't count */
        if (*digits > EXACT_DIGITS) {
            return false;
        }
    }
    return true;
}

static bool take_exponent(scanner *s, int *exponent) {
    if (s->at == s->end || (*s->at != 'e' && *s->at != 'E')) {
        return true;
    }
    s->at++;
    bool negative = false;
    if (s->at < s->end && (*s->at == '-' || *s->at == '+')) {
        negative = *s->at++ == '-';
    }
    int value = 0;
    if (!is_digit(s)) {
        return false;
    }
    for (; is_digit(s); s->at++) {
        value = value * 10 + (*s->at - '0');
        if (value > 99) {
            return false;
        }
    }
    *exponent += negative ? -value : value;
    return true;
}

/* The double below is off by at most 1.5 units in the last place (mantissa, power, quotient). When
 * everything within 4 units rounds to one float, that is the float. */
static bool round_to_float(float *out, double value) {
    float low = (float)(value * (1 - 4 * DBL_EPSILON));
    float high = (float)(value * (1 + 4 * DBL_EPSILON));
    *out = low;
    return low == high && isfinite(low) && (value == 0 || fabsf(low) >= FLT_MIN);
}

static bool take_number(scanner *s, float *out) {
    skip_space(s);
    bool negative = s->at < s->end && *s->at == '-';
    s->at += negative;
    uint64_t mantissa = 0;
    int digits = 0, exponent = 0;
    const char *first = s->at;
    if (!take_digits(s, &mantissa, &digits) || (*first == '0' && s->at - first > 1)) {
        return false;
    }
    if (s->at < s->end && *s->at == '.') {
        const char *fraction = ++s->at;
        if (!take_digits(s, &mantissa, &digits)) {
            return false;
        }
        exponent = -(int)(s->at - fraction);
    }
    if (!take_exponent(s, &exponent) || exponent <= -POWERS || exponent >= POWERS) {
        return false;
    }
    if (negative && mantissa == 0) {
        return false; /* to jansson "-0" is a whole number, without a sign, and "-0.0" has one */
    }
    double value = exponent < 0 ? (double)mantissa / power_of_ten[-exponent]
                                : (double)mantissa * power_of_ten[exponent];
    return round_to_float(out, negative ? -value : value);
}

static bool take_step(scanner *s, float *step) {
    for (int f = 0; f < DATASET_FEATURES; f++) {
        if (!take(s, f == 0 ? '[' : ',') || !take_number(s, &step[f])) {
            return false;
        }
    }
    return take(s, ']');
}

bool sequence_scan(float *window, int32_t time_steps, const char *body, size_t size) {
    static const char key[] = "\"sequence\"";
    scanner s = {body, body + size};
    if (!take(&s, '{')) {
        return false;
    }
    skip_space(&s);
    if ((size_t)(s.end - s.at) < sizeof key || memcmp(s.at, key, sizeof key - 1) != 0) {
        return false;
    }
    s.at += sizeof key - 1;
    if (!take(&s, ':')) {
        return false;
    }
    for (int32_t t = 0; t < time_steps; t++) {
        if (!take(&s, t == 0 ? '[' : ',') || !take_step(&s, window + t * DATASET_FEATURES)) {
            return false;
        }
    }
    if (!take(&s, ']') || !take(&s, '}')) {
        return false;
    }
    skip_space(&s);
    return s.at == s.end;
}
