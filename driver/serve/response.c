#include "serve/response.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "serve/router.h"
#include "serve/server.h"
#include "serve/worker.h"

const char content_json[] = "application/json";

void response_send(request *request, const response *response) {
    struct MHD_Response *answer = MHD_create_response_from_buffer(
        response->size,
        (void *)(uintptr_t)response->data, /* only read: NOLINT(performance-no-int-to-ptr) */
        response->lasting ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_COPY);
    request->state = REQUEST_ANSWERED;
    if (!answer) {
        return; /* no memory: the connection is closed unanswered */
    }
    bool ok = MHD_add_response_header(answer, "Content-Type", response->type) == MHD_YES;
    for (int i = 0; i < RESPONSE_HEADERS && response->headers[i].name; i++) {
        ok &= MHD_add_response_header(answer, response->headers[i].name,
                                      response->headers[i].value) == MHD_YES;
    }
    if (response->close || server_is_draining(request->worker->server)) {
        ok &= MHD_add_response_header(answer, "Connection", "close") == MHD_YES;
    }
    if (ok &&
        MHD_queue_response(request->connection, (unsigned)response->status, answer) == MHD_YES) {
        request->status = response->status;
        request->response_size = response->size;
    }
    MHD_destroy_response(answer);
}

void response_send_json(request *request, int status, json *json) {
    text_append(&json->text, "\n", 1);
    if (text_ok(&json->text)) {
        response_send(request, &(response){.status = status,
                                           .type = content_json,
                                           .data = json->text.data,
                                           .size = json->text.length});
    } else {
        response_send_refusal(request, 503, "out of memory");
    }
    json_free(json);
}

static void send_error(request *request, int status, const char *message, bool close) {
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "error", message);
    json_end(&json);
    text_append(&json.text, "\n", 1);
    response answer = {.status = status, .type = content_json, .close = close};
    answer.data = text_ok(&json.text) ? json.text.data : "{\"error\": \"out of memory\"}\n";
    answer.size = strlen(answer.data);
    if (status == 401) {
        answer.headers[0] = (response_header){"WWW-Authenticate", "Bearer"};
    } else if (status == 405) {
        answer.headers[0] = (response_header){"Allow", router_allowed(request)};
    } else if (status == 503) {
        answer.headers[0] = (response_header){"Retry-After", "1"};
    }
    response_send(request, &answer);
    json_free(&json);
}

void response_send_error(request *request, int status, const char *format, ...) {
    char message[ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    send_error(request, status, message, false);
}

void response_send_refusal(request *request, int status, const char *format, ...) {
    char message[ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    send_error(request, status, message, true);
}
