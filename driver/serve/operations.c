/* What operators and their machines ask: health, metrics, reload. */
#include <stdio.h>

#include "base/version.h"
#include "serve/handlers.h"
#include "serve/response.h"
#include "serve/server.h"

void handle_healthz(request *request) {
    const bool draining = server_is_draining(request->worker->server);
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "status", draining ? "draining" : "ok");
    json_string(&json, "model_version", request->snapshot->model.version);
    json_end(&json);
    response_send_json(request, draining ? 503 : 200, &json);
}

void handle_metrics(request *request) {
    server *server = request->worker->server;
    const model_store_counts reloads = model_store_count(server->store);
    const metrics_gauges gauges = {.program_version = program_version,
                                   .model_version = request->snapshot->model.version,
                                   .start_time_seconds = server->start_time,
                                   .ready = !server_is_draining(server),
                                   .connections = server_open_connections(server),
                                   .refused_connections = atomic_load(&server->refused),
                                   .dropped_log_lines =
                                       server->log ? log_writer_dropped(server->log) : 0,
                                   .reloads = reloads.reloads,
                                   .reload_failures = reloads.failures};
    metrics sum;
    text out = {0};
    server_sum_metrics(server, &sum);
    metrics_write(&out, &sum, &gauges);
    if (text_ok(&out)) {
        response_send(request, &(response){.status = 200,
                                           .type = "text/plain; version=0.0.4; charset=utf-8",
                                           .data = out.data,
                                           .size = out.length});
    } else {
        response_send_refusal(request, 503, "out of memory");
    }
    text_free(&out);
}

static void answer_reload(request *request) {
    if (!request->reload_ok) {
        response_send_error(request, 409, "the old model stays: %s", request->reload_message);
        return;
    }
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "status", "reloaded");
    json_string(&json, "model_version", request->reload_message);
    json_end(&json);
    response_send_json(request, 200, &json);
}

/* On the model store's thread. */
static void reloaded(void *context, bool ok, const char *message) {
    request *request = context;
    request->reload_ok = ok;
    snprintf(request->reload_message, sizeof request->reload_message, "%s", message);
    worker_give_reloaded(request);
}

void handle_reload(request *request) {
    server *server = request->worker->server;
    const char *token = server->options.admin_token;
    if (!token) {
        response_send_error(request, 403,
                            "reloading by request is off; start with "
                            "--admin-token-file, or send SIGHUP");
        return;
    }
    if (!request_has_token(request, token)) {
        response_send_error(request, 401, "this needs 'Authorization: Bearer <admin token>'");
        return;
    }
    request->finish = answer_reload;
    worker_suspend(request); /* first: the answer may come at once */
    if (!model_store_reload(server->store, reloaded, request)) {
        request->reload_ok = false;
        snprintf(request->reload_message, sizeof request->reload_message,
                 "too many reloads are waiting");
        worker_resume(request);
    }
}
