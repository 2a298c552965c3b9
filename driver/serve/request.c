/* Requests whose address, token, method or body must not go on are refused here; how messages are
 * framed is framing.c's. */
#include "serve/request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/response.h"
#include "serve/router.h"
#include "serve/server.h"
#include "serve/worker.h"

request *request_create(struct worker *worker, struct MHD_Connection *connection, const char *uri) {
    request *request = malloc(sizeof *request);
    if (!request) {
        return NULL;
    }
    /* predict.window (5 KB) is written before it is read; the rest begins as zero. */
    const predict_body *body = &request->predict;
    const size_t before = (size_t)((const char *)body->window - (const char *)request);
    const size_t after = before + sizeof body->window;
    memset(request, 0, before);
    memset((char *)request + after, 0, sizeof *request - after);
    request->worker = worker;
    request->connection = connection;
    request->began_ns = monotonic_ns();
    request->body_limit = (size_t)worker->server->options.body_limit;
    strncpy(request->uri, uri, sizeof request->uri - 1);
    return request;
}

void request_free(request *request) {
    if (!request) {
        return;
    }
    predict_body_free(&request->predict);
    oip_body_free(&request->oip);
    free(request->returns);
    free(request->body);
    snapshot_release(request->snapshot);
    free(request);
}

static bool is_header(const char *key, size_t size, const char *name) {
    return strncasecmp(key, name, size) == 0 && name[size] == '\0';
}

static enum MHD_Result read_header(void *context, enum MHD_ValueKind kind, const char *key,
                                   size_t key_size, const char *value, size_t value_size) {
    request_headers *headers = context;
    (void)kind;
    (void)value_size;
    const struct {
        const char *name;
        const char **value;
        int *count;
    } known[] = {
        {"Authorization", &headers->authorization, &headers->authorizations},
        {"Inference-Header-Content-Length", &headers->inference_length,
         &headers->inference_lengths},
        {"Accept", &headers->accept, NULL},
        {"User-Agent", &headers->user_agent, NULL},
        {"Content-Encoding", &headers->content_encoding, NULL},
        {"If-None-Match", &headers->if_none_match, NULL},
        {"X-Cloud-Trace-Context", &headers->trace, NULL},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!is_header(key, key_size, known[i].name)) {
            continue;
        }
        if (known[i].value) {
            *known[i].value = value ? value : "";
        }
        if (known[i].count) {
            ++*known[i].count;
        }
        break;
    }
    return MHD_YES;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Splits the path at its slashes, then decodes each segment. False: not a path. */
static bool split_path(request *request) {
    const char *from = request->uri;
    char *to = request->path;
    if (*from != '/') {
        return false;
    }
    while (*from && *from != '?' && *from != '#') {
        if (*from == '/') {
            if (request->segments == REQUEST_SEGMENTS) {
                return true; /* deeper than any route: not found */
            }
            *to++ = '\0';
            request->segment[request->segments++] = to;
            from++;
            continue;
        }
        int byte = (unsigned char)*from++;
        if (byte == '%') {
            const int high = hex_digit(from[0]), low = high < 0 ? -1 : hex_digit(from[1]);
            byte = low < 0 ? 0 : high * 16 + low;
            from += 2;
        }
        if (byte < 0x20 || byte == 0x7f) {
            return false; /* also a broken escape, before anything is read behind it */
        }
        *to++ = (char)byte;
    }
    *to = '\0';
    return true;
}

/* In a time that does not depend on where they differ. */
static bool same_secret(const char *given, const char *secret) {
    const size_t size = strlen(secret), given_size = strlen(given);
    unsigned difference = given_size != size;
    for (size_t i = 0; i < size; i++) {
        difference |= (unsigned)secret[i] ^ (unsigned)(i < given_size ? given[i] : 0);
    }
    return difference == 0;
}

bool request_has_token(const request *request, const char *token) {
    const request_headers *headers = &request->headers;
    return headers->authorizations == 1 && strncasecmp(headers->authorization, "Bearer ", 7) == 0 &&
           same_secret(headers->authorization + 7, token);
}

/* Whether a handler may have the request; otherwise the refusal has been sent. The body has been
 * read by then: a connection that is closed over unread bytes is reset, and the client would not
 * see why. */
bool request_may_go_on(request *request) {
    const char *encoding = request->headers.content_encoding;
    const char *token = request->worker->server->options.token;
    if (!split_path(request)) {
        response_send_error(request, 400, "the address is not a valid path");
        return false;
    }
    const route_match match = router_find(request);
    if (token && !(request->route && request->route->open) && !request_has_token(request, token)) {
        response_send_error(request, 401, "this needs 'Authorization: Bearer <token>'");
    } else if (match == ROUTE_UNKNOWN) {
        response_send_error(request, 404, "no such address; GET /openapi.json describes them all");
    } else if (match == ROUTE_WRONG_METHOD) {
        response_send_error(request, 405, "%s is not a method of this address", request->method);
    } else if (request->body_too_large) {
        response_send_error(request, 413, "the body is larger than %zu bytes", request->body_limit);
    } else if (encoding && strcasecmp(encoding, "identity") != 0) {
        response_send_error(request, 415, "compressed bodies are not read; send identity");
    } else {
        return true;
    }
    return false;
}

void request_begin(request *request, const char *method) {
    request->state = REQUEST_RECEIVING;
    strncpy(request->method, method, sizeof request->method - 1);
    MHD_get_connection_values_n(request->connection, MHD_HEADER_KIND, read_header,
                                &request->headers);
    request->snapshot = snapshot_hold(request->worker->snapshot);
}

void request_receive(request *request, const char *data, size_t size) {
    if (request->body_too_large || size > request->body_limit - request->body_size) {
        request->body_too_large = true; /* the rest is read and forgotten */
        return;
    }
    if (request->body_size + size >= request->body_capacity) {
        size_t capacity = (request->body_size + size) * 2 + 1;
        char *body = realloc(request->body, capacity);
        if (!body) {
            request->body_too_large = true;
            return;
        }
        request->body = body;
        request->body_capacity = capacity;
    }
    memcpy(request->body + request->body_size, data, size);
    request->body_size += size;
    request->body[request->body_size] = '\0';
}

static void job_ready(batch_job *job) {
    worker_resume(job->owner);
}

void request_await_batch(request *request, const float *features, float *returns, int32_t windows,
                         void (*finish)(struct request *request)) {
    request->job = (batch_job){.features = features,
                               .returns = returns,
                               .windows = windows,
                               .snapshot = request->snapshot,
                               .ready = job_ready,
                               .owner = request};
    request->finish = finish;
    batcher_submit(&request->worker->batcher, &request->job);
    worker_suspend(request);
}
