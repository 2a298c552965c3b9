/* One error message on its way up to main. Functions that fail fill it and return false; nobody
 * prints and nobody exits on the way. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>

enum { ERROR_MESSAGE_SIZE = 1024 };

typedef struct error {
    char message[ERROR_MESSAGE_SIZE]; /* what, where, what to do; "" when nothing failed */
} error;

/* Writes the message and returns false, so that `return error_set(...)` reads well. */
bool error_set(error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
