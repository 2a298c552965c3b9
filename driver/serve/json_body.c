#include "serve/json_body.h"

#include <float.h>
#include <math.h>
#include <string.h>

json_t *json_body_parse(const char *body, size_t size, error *error) {
    json_error_t reason;
    json_t *value = json_loadb(body, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &reason);
    if (!value) {
        error_set(error, "body is not valid JSON: %s (line %d, column %d)", reason.text,
                  reason.line, reason.column);
    } else if (!json_is_object(value)) {
        error_set(error, "body is not a JSON object");
        json_decref(value);
        value = NULL;
    }
    return value;
}

bool json_body_only(const json_t *object, const char *const *names, error *error) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        const char *const *name = names;
        while (*name && strcmp(*name, key) != 0) {
            name++;
        }
        if (!*name) {
            return error_set(error, "'%.64s' is not a member of this request", key);
        }
    }
    return true;
}

bool json_body_float(float *out, const json_t *value, const char *name, error *error) {
    if (!json_is_number(value)) {
        return error_set(error, "%s is not a number", name);
    }
    double number = json_number_value(value);
    if (!(fabs(number) <= FLT_MAX)) {
        return error_set(error, "%s is beyond single precision", name);
    }
    *out = (float)number;
    return true;
}
