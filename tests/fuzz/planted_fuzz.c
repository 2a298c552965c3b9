/* A bug on purpose: one byte behind the end, for inputs that begin with BUG. The tests' proof that
 * these fuzzers and sanitizers find what is there. */
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    volatile char sink = 0;
    char *copy = malloc(size + 1);
    CLAIM(copy);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    if (size >= 3 && memcmp(data, "BUG", 3) == 0) {
        sink = copy[size + 1];
        (void)sink;
    }
    free(copy);
    return 0;
}
