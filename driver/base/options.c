#include "base/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

enum { HELP_COLUMN = 28 };

static bool starts_like_number(const char *text) {
    return isdigit((unsigned char)text[0]) ||
           ((text[0] == '-' || text[0] == '.') && text[1] != '\0' && text[1] != '-');
}

bool parse_int64(const char *text, int64_t *value) {
    char *end = NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (!starts_like_number(text) || *end != '\0' || errno == ERANGE)
        return false;
    *value = number;
    return true;
}

bool parse_uint64(const char *text, uint64_t *value) {
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno == ERANGE)
        return false;
    *value = number;
    return true;
}

bool parse_double(const char *text, double *value) {
    char *end = NULL;
    double number = strtod(text, &end);
    if (!starts_like_number(text) || *end != '\0' || !isfinite(number))
        return false;
    *value = number;
    return true;
}

static bool check_range(const option *option, double value, error *error) {
    if ((option->least == 0 && option->most == 0) ||
        (value >= option->least && value <= option->most))
        return true;
    return error_set(error, "--%s: %.17g is out of range; it must be from %.15g to %.15g",
                     option->name, value, option->least, option->most);
}

static bool check_choice(const option *option, const char *value, error *error) {
    if (!option->choices)
        return true;
    char known[512] = "";
    size_t length = 0;
    for (const char *const *choice = option->choices; *choice; ++choice) {
        if (strcmp(*choice, value) == 0)
            return true;
        int added =
            snprintf(known + length, sizeof known - length, "%s%s", length ? ", " : "", *choice);
        if (added > 0 && length + (size_t)added < sizeof known)
            length += (size_t)added;
    }
    return error_set(error, "--%s: '%s' is unknown; known are %s", option->name, value, known);
}

static bool read_list(const option *option, const char *text, error *error) {
    string_list *list = option->value;
    size_t length = strlen(text);
    if (length >= sizeof list->text)
        return error_set(error, "--%s: the list is longer than %zu bytes", option->name,
                         sizeof list->text - 1);
    memcpy(list->text, text, length + 1);
    list->count = 0;
    for (char *item = list->text;;) {
        char *comma = strchr(item, ',');
        if (comma)
            *comma = '\0';
        if (*item == '\0')
            return error_set(error, "--%s: '%s' has an empty item", option->name, text);
        if (list->count == STRING_LIST_ITEMS)
            return error_set(error, "--%s: more than %d items", option->name, STRING_LIST_ITEMS);
        if (!check_choice(option, item, error))
            return false;
        list->items[list->count++] = item;
        if (!comma)
            return true;
        item = comma + 1;
    }
}

static bool read_value(const option *option, const char *text, error *error) {
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->value = true;
        return true;
    case OPTION_STRING:
        if (*text == '\0')
            return error_set(error, "--%s: its value is empty", option->name);
        *(const char **)option->value = text;
        return check_choice(option, text, error);
    case OPTION_LIST:
        return read_list(option, text, error);
    case OPTION_INT64:
        if (!parse_int64(text, option->value))
            return error_set(error, "--%s: '%s' is not a whole number", option->name, text);
        return check_range(option, (double)*(int64_t *)option->value, error);
    case OPTION_UINT64:
        if (!parse_uint64(text, option->value))
            return error_set(error, "--%s: '%s' is not a whole number from 0 to 2^64-1",
                             option->name, text);
        return check_range(option, (double)*(uint64_t *)option->value, error);
    case OPTION_DOUBLE:
        if (!parse_double(text, option->value))
            return error_set(error, "--%s: '%s' is not a number", option->name, text);
        return check_range(option, *(double *)option->value, error);
    }
    return error_set(error, "--%s: its kind is unknown", option->name);
}

static option *find_option(option *options, size_t count, const char *name, size_t length) {
    for (size_t i = 0; i < count; ++i)
        if (strlen(options[i].name) == length && memcmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

bool options_read(option *options, size_t count, int argc, char **argv, error *error) {
    for (int i = 1; i < argc; ++i) {
        if (argv[i][0] != '-' || argv[i][1] != '-' || argv[i][2] == '\0')
            return error_set(error, "'%s' is not expected here; options begin with --", argv[i]);
        const char *name = argv[i] + 2;
        const char *equals = strchr(name, '=');
        size_t length = equals ? (size_t)(equals - name) : strlen(name);
        option *found = find_option(options, count, name, length);
        if (!found)
            return error_set(error, "unknown option --%.*s", (int)length, name);
        if (found->given)
            return error_set(error, "--%s is given twice", found->name);
        found->given = true;
        const char *value = equals ? equals + 1 : NULL;
        if (found->kind == OPTION_FLAG && value)
            return error_set(error, "--%s takes no value", found->name);
        if (found->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc)
                return error_set(error, "--%s needs a value: %s", found->name, found->argument);
            value = argv[++i];
        }
        if (!read_value(found, value, error))
            return false;
    }
    for (size_t i = 0; i < count; ++i)
        if (options[i].required && !options[i].given)
            return error_set(error, "--%s %s is required", options[i].name, options[i].argument);
    return true;
}

bool option_given(const option *options, size_t count, const char *name) {
    for (size_t i = 0; i < count; ++i)
        if (strcmp(options[i].name, name) == 0)
            return options[i].given;
    return false;
}

static void print_default(const option *option) {
    switch (option->kind) {
    case OPTION_INT64:
        printf(" (default %" PRId64 ")", *(int64_t *)option->value);
        break;
    case OPTION_UINT64:
        printf(" (default %" PRIu64 ")", *(uint64_t *)option->value);
        break;
    case OPTION_DOUBLE:
        printf(" (default %g)", *(double *)option->value);
        break;
    case OPTION_STRING:
        if (*(const char **)option->value)
            printf(" (default %s)", *(const char **)option->value);
        break;
    case OPTION_FLAG:
    case OPTION_LIST:
        break;
    }
}

static void print_help(const char *command, const char *summary, const option *options,
                       size_t count) {
    printf("usage: return-predictor %s", command);
    for (size_t i = 0; i < count; ++i)
        if (options[i].required)
            printf(" --%s %s", options[i].name, options[i].argument);
    printf(" [options]\n%s\n\n", summary);
    for (size_t i = 0; i < count; ++i) {
        const option *option = &options[i];
        int width = printf("  --%s%s%s", option->name, option->argument ? " " : "",
                           option->argument ? option->argument : "");
        if (width >= HELP_COLUMN) {
            printf("\n");
            width = 0;
        }
        printf("%*s%s", HELP_COLUMN - width, "", option->help);
        if (option->required)
            printf(" (required)");
        else
            print_default(option);
        printf("\n");
    }
    printf("  --help%*sthis text\n", HELP_COLUMN - 8, "");
}

bool options_parse(const char *command, const char *summary, option *options, size_t count,
                   int argc, char **argv, int *status) {
    for (int i = 1; i < argc; ++i)
        if (strcmp(argv[i], "--help") == 0) {
            print_help(command, summary, options, count);
            *status = EXIT_DONE;
            return false;
        }
    error error = {""};
    if (options_read(options, count, argc, argv, &error))
        return true;
    fprintf(stderr,
            "return-predictor %s: %s\n"
            "See 'return-predictor %s --help'.\n",
            command, error.message, command);
    *status = EXIT_USAGE;
    return false;
}
