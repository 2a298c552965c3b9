/* The body of POST /predict. The input's first byte gives the model's time steps. The quick scanner
 * of sequences and the general parser must agree to the bit. */
#include <math.h>
#include <string.h>

#include "fuzz.h"
#include "serve/predict_body.h"
#include "serve/sequence.h"

/* The same document with a member more, which only the general parser reads. */
static void compare(const float *window, int32_t time_steps, const char *body, size_t size) {
    static const char member[] = ",\"features\":\"scaled\"}";
    predict_body general;
    error error = {""};
    size_t length = size;
    while (body[length - 1] != '}') {
        length--;
    }
    char *longer = malloc(length + sizeof member);
    CLAIM(longer);
    memcpy(longer, body, length - 1);
    memcpy(longer + length - 1, member, sizeof member);
    CLAIM(predict_body_parse(&general, time_steps, longer, length - 1 + sizeof member - 1, &error));
    CLAIM(general.form == PREDICT_SEQUENCE && !general.raw);
    CLAIM(memcmp(window, general.window, (size_t)time_steps * DATASET_FEATURES * sizeof *window) ==
          0);
    predict_body_free(&general);
    free(longer);
}

static void check(const predict_body *body, int32_t time_steps) {
    CLAIM(strlen(body->ticker) < sizeof body->ticker);
    if (body->form == PREDICT_SEQUENCE) {
        for (int32_t i = 0; i < time_steps * DATASET_FEATURES; i++) {
            CLAIM(isfinite(body->window[i]));
        }
    }
    for (int32_t i = 0; i < body->bars; i++) {
        CLAIM(isfinite(body->adj_close[i]) && body->adj_close[i] > 0);
        CLAIM(body->volume[i] >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    const int32_t time_steps = data[0] % 4 + 1;
    const char *text = (const char *)data + 1;
    float window[TIME_STEPS_MOST * DATASET_FEATURES];
    predict_body body;
    error error = {""};
    if (sequence_scan(window, time_steps, text, size - 1)) {
        compare(window, time_steps, text, size - 1);
    }
    if (predict_body_parse(&body, time_steps, text, size - 1, &error)) {
        check(&body, time_steps);
        predict_body_free(&body);
    } else {
        CLAIM(error.message[0]);
    }
    return 0;
}
