/* Command lines: the input's lines are the arguments, the table has an option of each kind. */
#include <math.h>
#include <string.h>

#include "base/options.h"
#include "fuzz.h"

enum { ARGUMENTS = 32, TEXT_SIZE = 4096 };

typedef struct values {
    bool flag;
    const char *text, *choice;
    int64_t whole;
    uint64_t seed;
    double real;
    string_list list;
} values;

static void check(const values *v) {
    CLAIM(v->whole >= 1 && v->whole <= 1000);
    CLAIM(v->real >= -0.5 && v->real <= 0.5);
    CLAIM(strcmp(v->choice, "cpu") == 0 || strcmp(v->choice, "gpu-fused") == 0);
    CLAIM(v->list.count >= 0 && v->list.count <= STRING_LIST_ITEMS);
    for (int32_t i = 0; i < v->list.count; i++) {
        CLAIM(v->list.items[i][0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const choices[] = {"cpu", "gpu-fused", NULL};
    values v = {.choice = "cpu", .whole = 10, .real = 0.25};
    option options[] = {
        {"flag", OPTION_FLAG, &v.flag, NULL, "a flag"},
        {"text", OPTION_STRING, &v.text, "FILE", "a text"},
        {"choice", OPTION_STRING, &v.choice, "NAME", "one of two", .choices = choices},
        {"whole", OPTION_INT64, &v.whole, "N", "a whole number", .least = 1, .most = 1000},
        {"seed", OPTION_UINT64, &v.seed, "N", "a natural number"},
        {"real", OPTION_DOUBLE, &v.real, "X", "a number", .least = -0.5, .most = 0.5},
        {"list", OPTION_LIST, &v.list, "LIST", "some of two", .choices = choices},
    };
    char text[TEXT_SIZE], *arguments[ARGUMENTS + 2] = {"fuzz", text};
    int count = 1;
    error error = {""};
    if (size >= sizeof text || memchr(data, '\0', size)) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    for (char *at = text; at && count <= ARGUMENTS; count++) {
        arguments[count] = at;
        at = strchr(at, '\n');
        if (at) {
            *at++ = '\0';
        }
    }
    arguments[count] = NULL;
    if (options_read(options, sizeof options / sizeof *options, count, arguments, &error)) {
        check(&v);
    } else {
        CLAIM(error.message[0]);
    }
    return 0;
}
