/* The body of an Open Inference Protocol request. The input's first line is the value of the header
 * Inference-Header-Content-Length, or empty; the model reads one day a window. */
#include <math.h>
#include <string.h>

#include "fuzz.h"
#include "serve/oip_body.h"

enum { TIME_STEPS = 1, FEATURES = 4 };

static void check(const oip_body *body) {
    CLAIM(body->windows >= 1 && body->windows <= OIP_WINDOWS_MOST);
    CLAIM(body->wanted_count >= 1 && body->wanted_count <= OIP_OUTPUTS);
    CLAIM(strlen(body->id) < sizeof body->id);
    for (int32_t i = 0; i < body->windows * TIME_STEPS * FEATURES; i++) {
        CLAIM(isfinite(body->features[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line_end = size > 0 ? memchr(data, '\n', size) : NULL;
    if (!line_end || line_end - data > 9) {
        return 0;
    }
    char line[10] = "";
    memcpy(line, data, (size_t)(line_end - data));
    const char *text = (const char *)line_end + 1;
    const size_t left = size - (size_t)(line_end + 1 - data);
    size_t json_size = *line ? (size_t)strtoul(line, NULL, 10) : left;
    const oip_model model = {TIME_STEPS, data[0] & 1 ? 1 : OIP_OUTPUTS};
    oip_body body;
    error error = {""};
    if (oip_body_parse(&body, &model, text, left, json_size, &error)) {
        check(&body);
        oip_body_free(&body);
    } else {
        CLAIM(error.message[0]);
    }
    return 0;
}
