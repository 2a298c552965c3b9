#include "serve/oip_body.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataset/dataset.h"
#include "serve/json_body.h"

const char *const oip_output_name[OIP_OUTPUTS] = {"predicted_return", "interval_80", "interval_95"};
const int oip_output_columns[OIP_OUTPUTS] = {1, 2, 2};

static int64_t value_count(const oip_body *body, const oip_model *model) {
    return (int64_t)body->windows * model->time_steps * DATASET_FEATURES;
}

static bool read_shape(oip_body *out, const oip_model *model, const json_t *shape, error *error) {
    json_int_t n = json_integer_value(json_array_get(shape, 0));
    if (!json_is_array(shape) || json_array_size(shape) != 3 ||
        json_integer_value(json_array_get(shape, 1)) != model->time_steps ||
        json_integer_value(json_array_get(shape, 2)) != DATASET_FEATURES) {
        return error_set(error, "input " OIP_INPUT " has to have shape [N, %d, %d]",
                         model->time_steps, DATASET_FEATURES);
    }
    if (n < 1 || n > OIP_WINDOWS_MOST) {
        return error_set(error, "input " OIP_INPUT " has to hold 1 to %d windows",
                         OIP_WINDOWS_MOST);
    }
    out->windows = (int32_t)n;
    return true;
}

/* Data is flat or nested, row-major; both are read the same way, depth first. */
static bool read_numbers(float *out, int64_t count, int64_t *filled, const json_t *array, int depth,
                         error *error) {
    size_t index;
    json_t *value;
    json_array_foreach((json_t *)array, index, value) {
        if (json_is_array(value)) {
            if (depth == 3) {
                return error_set(error, "data of " OIP_INPUT " is nested deeper than its shape");
            }
            if (!read_numbers(out, count, filled, value, depth + 1, error)) {
                return false;
            }
            continue;
        }
        if (*filled == count) {
            return error_set(error,
                             "data of " OIP_INPUT " has more than the %lld numbers of its shape",
                             (long long)count);
        }
        if (!json_body_float(&out[*filled], value, "a value of " OIP_INPUT, error)) {
            return false;
        }
        ++*filled;
    }
    return true;
}

static bool read_json_data(oip_body *out, int64_t count, const json_t *data, error *error) {
    int64_t filled = 0;
    if (!json_is_array(data)) {
        return error_set(error, "input " OIP_INPUT " has neither data nor binary_data_size");
    }
    if (!read_numbers(out->features, count, &filled, data, 1, error)) {
        return false;
    }
    return filled == count ||
           error_set(error, "data of " OIP_INPUT " has %lld numbers, its shape %lld",
                     (long long)filled, (long long)count);
}

static float little_endian_float(const unsigned char *bytes) {
    uint32_t bits = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                    (uint32_t)bytes[3] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool read_binary_data(oip_body *out, int64_t count, json_int_t declared, const char *bytes,
                             size_t size, error *error) {
    if (declared != count * 4 || size != (size_t)count * 4) {
        return error_set(error,
                         "binary data of " OIP_INPUT ": its shape needs %lld bytes, "
                         "binary_data_size is %lld, the body has %zu",
                         (long long)count * 4, (long long)declared, size);
    }
    for (int64_t i = 0; i < count; i++) {
        out->features[i] = little_endian_float((const unsigned char *)bytes + i * 4);
        if (!isfinite(out->features[i])) {
            return error_set(error, "value %lld of " OIP_INPUT " is not finite", (long long)i);
        }
    }
    return true;
}

static bool read_input(oip_body *out, const oip_model *model, const json_t *root, const char *bytes,
                       size_t size, error *error) {
    const json_t *inputs = json_object_get(root, "inputs");
    const json_t *input = json_array_get(inputs, 0);
    if (!json_is_array(inputs) || json_array_size(inputs) != 1 || !json_is_object(input)) {
        return error_set(error, "inputs is not an array of one tensor");
    }
    const char *name = json_string_value(json_object_get(input, "name"));
    const char *datatype = json_string_value(json_object_get(input, "datatype"));
    if (!name || strcmp(name, OIP_INPUT) != 0) {
        return error_set(error, "the model's one input is named " OIP_INPUT);
    }
    if (!datatype || strcmp(datatype, "FP32") != 0) {
        return error_set(error, "datatype of " OIP_INPUT " has to be FP32");
    }
    if (!read_shape(out, model, json_object_get(input, "shape"), error)) {
        return false;
    }
    int64_t count = value_count(out, model);
    const json_t *data = json_object_get(input, "data");
    const json_t *binary =
        json_object_get(json_object_get(input, "parameters"), "binary_data_size");
    if (data && binary) {
        return error_set(error, "input " OIP_INPUT " has both data and binary_data_size");
    }
    if (!binary && size != 0) {
        return error_set(error, "%zu bytes follow the JSON and no input claims them", size);
    }
    out->features = malloc((size_t)count * sizeof *out->features);
    if (!out->features) {
        return error_set(error, "no memory for %d windows", out->windows);
    }
    return binary ? read_binary_data(out, count,
                                     json_is_integer(binary) ? json_integer_value(binary) : -1,
                                     bytes, size, error)
                  : read_json_data(out, count, data, error);
}

static bool add_output(oip_body *out, const oip_model *model, const json_t *item, bool binary,
                       error *error) {
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *own = json_object_get(json_object_get(item, "parameters"), "binary_data");
    int output = 0;
    while (output < model->outputs && (!name || strcmp(name, oip_output_name[output]) != 0)) {
        output++;
    }
    if (output == model->outputs) {
        return error_set(error, "the model has no output '%.64s'", name ? name : "");
    }
    for (int i = 0; i < out->wanted_count; i++) {
        if (out->wanted[i].output == output) {
            return error_set(error, "output %s is asked for twice", name);
        }
    }
    out->wanted[out->wanted_count++] = (oip_wanted){output, own ? json_is_true(own) : binary};
    return true;
}

/* Without "outputs" the answer has all of them. */
static bool read_outputs(oip_body *out, const oip_model *model, const json_t *root, error *error) {
    const json_t *outputs = json_object_get(root, "outputs");
    const bool binary =
        json_is_true(json_object_get(json_object_get(root, "parameters"), "binary_data_output"));
    if (!outputs || (json_is_array(outputs) && json_array_size(outputs) == 0)) {
        for (int i = 0; i < model->outputs; i++) {
            out->wanted[out->wanted_count++] = (oip_wanted){i, binary};
        }
        return true;
    }
    if (!json_is_array(outputs)) {
        return error_set(error, "outputs is not an array");
    }
    size_t index;
    json_t *item;
    json_array_foreach((json_t *)outputs, index, item) {
        if (!add_output(out, model, item, binary, error)) {
            return false;
        }
    }
    return true;
}

static bool read_id(oip_body *out, const json_t *root, error *error) {
    const json_t *id = json_object_get(root, "id");
    if (!id) {
        return true;
    }
    size_t length = json_string_length(id);
    if (!json_is_string(id) || length >= sizeof out->id) {
        return error_set(error, "id is not a string of at most %zu bytes", sizeof out->id - 1);
    }
    memcpy(out->id, json_string_value(id), length + 1);
    out->has_id = true;
    return true;
}

bool oip_body_parse(oip_body *out, const oip_model *model, const char *body, size_t size,
                    size_t json_size, error *error) {
    *out = (oip_body){0};
    if (json_size > size) {
        return error_set(error, "Inference-Header-Content-Length is %zu, the body has %zu bytes",
                         json_size, size);
    }
    json_t *root = json_body_parse(body, json_size, error);
    if (!root) {
        return false;
    }
    bool ok = read_id(out, root, error) && read_outputs(out, model, root, error) &&
              read_input(out, model, root, body + json_size, size - json_size, error);
    json_decref(root);
    if (!ok) {
        oip_body_free(out);
    }
    return ok;
}

void oip_body_free(oip_body *body) {
    free(body->features);
    body->features = NULL;
}
