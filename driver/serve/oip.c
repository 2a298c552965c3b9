/* Open Inference Protocol v2: https://github.com/kserve/open-inference-protocol, with Triton's
 * binary tensor and statistics extensions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "serve/handlers.h"
#include "serve/response.h"
#include "serve/server.h"
#include "serve/worker.h"

#define PLATFORM "return-predictor"

/* The model's name is segment 1 of /v2/models/{m}, a version segment 3. False: 404 was sent. */
static bool check_model(request *request) {
    const char *name = request->segment[2];
    const char *version = request->segments > 4 && strcmp(request->segment[3], "versions") == 0
                              ? request->segment[4]
                              : NULL;
    if (strcmp(name, MODEL_NAME) != 0) {
        response_send_error(request, 404, "no model '%s'; there is " MODEL_NAME, name);
        return false;
    }
    if (version && strcmp(version, request->snapshot->model.version) != 0) {
        response_send_error(request, 404, "no version '%s' of " MODEL_NAME "; there is %s", version,
                            request->snapshot->model.version);
        return false;
    }
    return true;
}

static int output_count(const snapshot *snapshot) {
    return snapshot->model.metadata.calibrated ? OIP_OUTPUTS : 1;
}

void handle_oip_server(request *request) {
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "name", PLATFORM);
    json_string(&json, "version", program_version);
    json_array(&json, "extensions");
    json_string(&json, NULL, "binary_tensor_data");
    json_string(&json, NULL, "statistics");
    json_end(&json);
    json_end(&json);
    response_send_json(request, 200, &json);
}

static void send_flag(request *request, const char *name, bool value) {
    json json = {0};
    json_object(&json, NULL);
    json_bool(&json, name, value);
    if (!value) {
        json_string(&json, "error", "draining: the service is about to stop");
    }
    json_end(&json);
    response_send_json(request, value ? 200 : 503, &json);
}

void handle_oip_live(request *request) {
    send_flag(request, "live", true);
}

void handle_oip_ready(request *request) {
    send_flag(request, "ready", !server_is_draining(request->worker->server));
}

void handle_oip_model_ready(request *request) {
    if (!check_model(request)) {
        return;
    }
    const bool ready = !server_is_draining(request->worker->server);
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "name", MODEL_NAME);
    json_bool(&json, "ready", ready);
    json_end(&json);
    response_send_json(request, ready ? 200 : 503, &json);
}

static void write_tensor(json *json, const char *name, int32_t steps, int columns) {
    json_object(json, NULL);
    json_string(json, "name", name);
    json_string(json, "datatype", "FP32");
    json_array(json, "shape");
    json_int(json, NULL, -1);
    if (steps > 0) {
        json_int(json, NULL, steps);
    }
    json_int(json, NULL, columns);
    json_end(json);
    json_end(json);
}

void handle_oip_model(request *request) {
    if (!check_model(request)) {
        return;
    }
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "name", MODEL_NAME);
    json_array(&json, "versions");
    json_string(&json, NULL, request->snapshot->model.version);
    json_end(&json);
    json_string(&json, "platform", PLATFORM);
    json_array(&json, "inputs");
    write_tensor(&json, OIP_INPUT, request->snapshot->time_steps, DATASET_FEATURES);
    json_end(&json);
    json_array(&json, "outputs");
    for (int i = 0; i < output_count(request->snapshot); i++) {
        write_tensor(&json, oip_output_name[i], 0, oip_output_columns[i]);
    }
    json_end(&json);
    json_end(&json);
    response_send_json(request, 200, &json);
}

/* ---- infer ----------------------------------------------------------------------------------- */

/* One output [windows][columns]. */
static void compute_output(float *out, const request *request, int output) {
    const snapshot *snapshot = request->snapshot;
    const size_t window = (size_t)snapshot->time_steps * DATASET_FEATURES;
    for (int32_t i = 0; i < request->oip.windows; i++) {
        if (output == OIP_PREDICTED_RETURN) {
            out[i] = request->returns[i];
            continue;
        }
        const double volatility =
            snapshot_volatility(snapshot, request->oip.features + (size_t)i * window);
        const forecast forecast = snapshot_forecast(snapshot, request->returns[i], volatility);
        out[2 * i] = (float)forecast.interval[output - OIP_INTERVAL_80][0];
        out[2 * i + 1] = (float)forecast.interval[output - OIP_INTERVAL_80][1];
    }
}

static void append_little_endian(text *text, const float *values, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        const unsigned char bytes[4] = {(unsigned char)bits, (unsigned char)(bits >> 8),
                                        (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)};
        text_append(text, bytes, sizeof bytes);
    }
}

static void write_output(json *json, text *binary, const request *request, oip_wanted wanted,
                         const float *values) {
    const int32_t columns = oip_output_columns[wanted.output];
    const int32_t count = request->oip.windows * columns;
    json_object(json, NULL);
    json_string(json, "name", oip_output_name[wanted.output]);
    json_string(json, "datatype", "FP32");
    json_array(json, "shape");
    json_int(json, NULL, request->oip.windows);
    json_int(json, NULL, columns);
    json_end(json);
    if (wanted.binary) {
        json_object(json, "parameters");
        json_int(json, "binary_data_size", (int64_t)count * 4);
        json_end(json);
        append_little_endian(binary, values, count);
    } else {
        json_array(json, "data");
        for (int32_t i = 0; i < count; i++) {
            json_double(json, NULL, values[i]);
        }
        json_end(json);
    }
    json_end(json);
}

static void write_answer(json *json, text *binary, const request *request, float *values) {
    const oip_body *body = &request->oip;
    json_object(json, NULL);
    json_string(json, "model_name", MODEL_NAME);
    json_string(json, "model_version", request->snapshot->model.version);
    if (body->has_id) {
        json_string(json, "id", body->id);
    }
    json_array(json, "outputs");
    for (int i = 0; i < body->wanted_count; i++) {
        compute_output(values, request, body->wanted[i].output);
        write_output(json, binary, request, body->wanted[i], values);
    }
    json_end(json);
    json_end(json);
}

static void send_binary(request *request, json *json, text *binary) {
    char length[24];
    snprintf(length, sizeof length, "%zu", json->text.length);
    text_append(&json->text, binary->data, binary->length);
    if (text_ok(&json->text) && text_ok(binary)) {
        response_send(request,
                      &(response){.status = 200,
                                  .type = "application/octet-stream",
                                  .data = json->text.data,
                                  .size = json->text.length,
                                  .headers = {{"Inference-Header-Content-Length", length}}});
    } else {
        response_send_refusal(request, 503, "out of memory");
    }
    json_free(json);
}

static void answer_after_batch(request *request) {
    const int32_t windows = request->oip.windows;
    bool finite = !request->job.failed;
    for (int32_t i = 0; i < windows && finite; i++) {
        finite = isfinite(request->returns[i]) != 0;
    }
    if (!finite) {
        response_send_error(request, 422, "the model has no finite answer to these windows");
        return;
    }
    float *values = malloc((size_t)windows * 2 * sizeof *values);
    if (!values) {
        response_send_error(request, 503, "out of memory");
        return;
    }
    json json = {0};
    text binary = {0};
    write_answer(&json, &binary, request, values);
    if (binary.length > 0) {
        send_binary(request, &json, &binary);
    } else {
        response_send_json(request, 200, &json);
    }
    text_free(&binary);
    free(values);
}

/* False: the header is not one number. */
static bool json_size(size_t *size, const request *request) {
    const char *text = request->headers.inference_length;
    *size = request->body_size;
    if (!text) {
        return true;
    }
    const size_t digits = strspn(text, "0123456789");
    *size = (size_t)strtoull(text, NULL, 10);
    return digits > 0 && digits <= 18 && text[digits] == '\0' &&
           request->headers.inference_lengths == 1;
}

void handle_oip_infer(request *request) {
    const oip_model model = {request->snapshot->time_steps, output_count(request->snapshot)};
    size_t size;
    error error;
    if (!check_model(request)) {
        return;
    }
    if (!json_size(&size, request)) {
        response_send_error(request, 400, "Inference-Header-Content-Length is not one number");
        return;
    }
    if (!oip_body_parse(&request->oip, &model, request->body ? request->body : "",
                        request->body_size, size, &error)) {
        response_send_error(request, 400, "%s", error.message);
        return;
    }
    request->returns = malloc((size_t)request->oip.windows * sizeof *request->returns);
    if (!request->returns) {
        response_send_error(request, 503, "out of memory");
        return;
    }
    request_await_batch(request, request->oip.features, request->returns, request->oip.windows,
                        answer_after_batch);
}

/* ---- stats ----------------------------------------------------------------------------------- */

static void write_duration(json *json, const char *key, const counter *count, uint64_t ns) {
    json_object(json, key);
    json_int(json, "count", (int64_t)atomic_load(count));
    json_int(json, "ns", (int64_t)ns);
    json_end(json);
}

static void write_statistics(json *json, const metrics *sum) {
    const counter none = 0;
    json_object(json, "inference_stats");
    write_duration(json, "success", &sum->inferences, sum->queue_ns + sum->inference_ns);
    write_duration(json, "fail", &sum->inference_failures, 0);
    write_duration(json, "queue", &sum->inferences, sum->queue_ns);
    write_duration(json, "compute_input", &none, 0);
    write_duration(json, "compute_infer", &sum->inferences, sum->inference_ns);
    write_duration(json, "compute_output", &none, 0);
    write_duration(json, "cache_hit", &sum->lookups, 0);
    write_duration(json, "cache_miss", &none, 0);
    json_end(json);
    json_array(json, "batch_stats");
    json_end(json);
}

void handle_oip_stats(request *request) {
    if (!check_model(request)) {
        return;
    }
    metrics sum;
    server_sum_metrics(request->worker->server, &sum);
    json json = {0};
    json_object(&json, NULL);
    json_array(&json, "model_stats");
    json_object(&json, NULL);
    json_string(&json, "name", MODEL_NAME);
    json_string(&json, "version", request->snapshot->model.version);
    json_int(&json, "last_inference", (int64_t)sum.last_inference_ms);
    json_int(&json, "inference_count", (int64_t)sum.windows);
    json_int(&json, "execution_count", (int64_t)sum.batches);
    write_statistics(&json, &sum);
    json_end(&json);
    json_end(&json);
    json_end(&json);
    response_send_json(request, 200, &json);
}
