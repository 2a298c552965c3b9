/* The strict reader of HTTP framing: what it says must not depend on how the bytes were cut. */
#include <string.h>

#include "fuzz.h"
#include "serve/framing.h"

/* Scans in pieces of `piece` bytes; returns how many are good. */
static size_t scan(framing *framing, char *bytes, size_t size, size_t piece) {
    static const framing_limits limits = {.head = 512, .body = 64};
    size_t good = 0;
    *framing = (struct framing){0};
    for (size_t at = 0; at < size && !framing->status; at += piece) {
        const size_t length = piece < size - at ? piece : size - at;
        const size_t accepted = framing_scan(framing, bytes + at, length, &limits);
        CLAIM(accepted <= length && (framing->status || accepted == length));
        good += accepted;
    }
    return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    framing whole, cut;
    if (size < 2 || size > 4096) {
        return 0;
    }
    char *bytes = malloc(size), *again = malloc(size);
    CLAIM(bytes && again);
    memcpy(bytes, data, size);
    memcpy(again, data, size);
    const size_t good = scan(&whole, bytes, size, size);
    const size_t piece = data[size - 1] % 7u + 1;
    const size_t good_cut = scan(&cut, again, size, piece);
    CLAIM(whole.status == cut.status && framing_is_inside(&whole) == framing_is_inside(&cut));
    /* A message whose beginning was good before its refusal came has been let through in part. */
    CLAIM(good_cut >= good && good_cut <= size && (whole.status || good_cut == good));
    CLAIM(memcmp(bytes, again, good) == 0);
    CLAIM(!whole.status || (whole.status >= 400 && whole.status < 600 && whole.reason[0]));
    free(bytes);
    free(again);
    return 0;
}
