#include "json_line.h"

#include <jansson.h>

bool json_line_is_object(const char *text, size_t size) {
    json_error_t reason;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES, &reason);
    const bool is_object = json_is_object(value);
    json_decref(value);
    return is_object;
}
