/* GNU-style long options from a table: `--name value`, `--name=value`, `--flag`.
 *
 *     const char *prices = NULL;
 *     int64_t epochs = 10;
 *     option options[] = {
 *         {"prices", OPTION_STRING, &prices, "DIR", "price files", .required = true},
 *         {"epochs", OPTION_INT64, &epochs, "N", "passes over the data", .least = 1, .most = 1000},
 *     };
 *     int status;
 *     if (!OPTIONS_PARSE("train", "Trains one model.", options, argc, argv, &status))
 *         return status;
 *
 * A value's variable holds the default beforehand; --help prints it. Unknown and repeated options,
 * missing values, numbers that are not numbers and numbers out of range are usage errors. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_STRING, /* const char *: borrowed from argv */
    OPTION_INT64,
    OPTION_UINT64,
    OPTION_DOUBLE,
    OPTION_LIST /* string_list */
} option_kind;

enum { STRING_LIST_ITEMS = 128, STRING_LIST_TEXT = 2048 };

/* A comma-separated list. */
typedef struct string_list {
    int32_t count;
    char *items[STRING_LIST_ITEMS]; /* into `text` */
    char text[STRING_LIST_TEXT];
} string_list;

typedef struct option {
    const char *name; /* without the dashes */
    option_kind kind;
    void *value;          /* of the kind's type; holds the default, receives the value */
    const char *argument; /* of the value in --help, "DIR"; NULL for flags */
    const char *help;
    double least, most;         /* of a number, inclusive; both 0: any */
    const char *const *choices; /* of a string or a list's items, NULL-terminated; NULL: any */
    bool required;
    bool given; /* set by parsing */
} option;

/* True: go on. False: return *status from the command; --help (0) or the usage error (2) has been
 * printed. `options` is written to: `given`. */
bool options_parse(const char *command, const char *summary, option *options, size_t count,
                   int argc, char **argv, int *status);
#define OPTIONS_PARSE(command, summary, options, argc, argv, status)                               \
    options_parse(command, summary, options, sizeof(options) / sizeof *(options), argc, argv,      \
                  status)

/* The parts of it, for tests. */
bool options_read(option *options, size_t count, int argc, char **argv, error *error);
bool option_given(const option *options, size_t count, const char *name);

/* Strict numbers: the whole string, no spaces, finite. */
bool parse_int64(const char *text, int64_t *value);
bool parse_uint64(const char *text, uint64_t *value);
bool parse_double(const char *text, double *value);

#endif
