/* JSON, written value by value into growing text.
 *
 *     json json = {.lines = 2};
 *     json_object(&json, NULL);
 *     json_string(&json, "ticker", "AAPL");
 *     json_array(&json, "raw");
 *     json_double(&json, NULL, 0.1);
 *     json_end(&json);
 *     json_end(&json);
 *     bool ok = json_write(&json, path, error);
 *     json_free(&json);
 *
 * `key` names a member inside an object and is NULL inside an array and at the top. Doubles are
 * written so that they read back unchanged (17 digits at most); NaN and infinities become null,
 * because JSON has neither. Strings are UTF-8; bytes that are not become U+FFFD. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/text.h"

enum { JSON_DEPTH = 16 };

typedef struct json {
    text text; /* what was written so far, owned */
    int lines; /* levels whose members each get a line of their own; 0: all on one line */
    int depth; /* containers open now */
    bool filled[JSON_DEPTH + 1]; /* the container at this depth has a member already */
    char closing[JSON_DEPTH];    /* '}' or ']' of each open container */
} json;

void json_object(json *json, const char *key);
void json_array(json *json, const char *key);
void json_end(json *json); /* of the innermost object or array */

void json_string(json *json, const char *key, const char *value); /* NULL: null */
void json_double(json *json, const char *key, double value);
void json_int(json *json, const char *key, int64_t value);
void json_bool(json *json, const char *key, bool value);
void json_null(json *json, const char *key);

/* Writes the finished value and a newline to the file `path`, atomically, or to standard output
 * when `path` is NULL. */
bool json_write(json *json, const char *path, error *error);
void json_free(json *json);

#endif
