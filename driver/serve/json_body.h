/* Request bodies as JSON documents (jansson), strictly: one value and nothing behind it, UTF-8, no
 * duplicate members, no NaN or Infinity. Nothing here knows HTTP, so that fuzzers can call it. */
#ifndef SERVE_JSON_BODY_H
#define SERVE_JSON_BODY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* NULL with the reason in `error`; otherwise an object that json_decref frees. */
json_t *json_body_parse(const char *body, size_t size, error *error);

/* Refuses members that are not in `names` (NULL-terminated), so that a misspelt one is noticed. */
bool json_body_only(const json_t *object, const char *const *names, error *error);

/* A number that is finite as a float; `name` says in the error which one. */
bool json_body_float(float *out, const json_t *value, const char *name, error *error);

#endif
