/* One HTTP request from its request line to the last byte of its answer. */
#ifndef SERVE_REQUEST_H
#define SERVE_REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/batcher.h"
#include "serve/framing.h"
#include "serve/oip_body.h"
#include "serve/predict_body.h"

struct worker;
struct route;

enum { URI_SIZE = FRAMING_TARGET_MOST + 1, REQUEST_SEGMENTS = 6 };

/* The headers that anything here looks at; pointers are libmicrohttpd's, NULL if absent. */
typedef struct request_headers {
    const char *accept, *authorization, *user_agent, *trace, *content_encoding;
    const char *inference_length, *if_none_match;
    int authorizations, inference_lengths;
} request_headers;

typedef enum request_state {
    REQUEST_NEW,       /* the request line was read */
    REQUEST_RECEIVING, /* headers accepted, body arriving */
    REQUEST_WAITING,   /* suspended: for the model or a reload */
    REQUEST_ANSWERED
} request_state;

typedef struct request {
    struct worker *worker;
    struct MHD_Connection *connection;
    const char *peer; /* the client's address */
    const struct route *route;
    request_state state;
    request_headers headers;
    char method[16];
    char uri[URI_SIZE];                    /* as sent, for the log */
    char path[URI_SIZE];                   /* decoded, cut at its slashes */
    const char *segment[REQUEST_SEGMENTS]; /* into path */
    int segments;
    int64_t began_ns;
    char *body; /* [body_size] and a NUL, owned */
    size_t body_size, body_capacity, body_limit;
    bool body_too_large;
    snapshot *snapshot; /* held from the headers to the end */

    void (*finish)(struct request *request); /* answers once the wait is over */
    batch_job job;
    predict_body predict;
    int64_t row;       /* of predict's ticker and date, or -1 */
    double volatility; /* vol20 of the last day of predict's window */
    float predicted;   /* predict's one return */
    oip_body oip;
    float *returns; /* [oip.windows], owned */
    bool reload_ok;
    char reload_message[ERROR_MESSAGE_SIZE];

    int status; /* of the answer; 0 before */
    size_t response_size;
} request;

request *request_create(struct worker *worker, struct MHD_Connection *connection, const char *uri);
void request_free(request *request);

/* Reads the headers. */
void request_begin(request *request, const char *method);

/* Finds the route, once the body is there. False: it was refused, and the answer sent. */
bool request_may_go_on(request *request);

/* Whether it carries 'Authorization: Bearer <token>'. */
bool request_has_token(const request *request, const char *token);

/* Keeps one more piece of the body, up to the limit. */
void request_receive(request *request, const char *data, size_t size);

/* Runs the windows through the model, then goes on with `finish`. The connection is suspended
 * meanwhile; both arrays must live as long as the request. */
void request_await_batch(request *request, const float *features, float *returns, int32_t windows,
                         void (*finish)(struct request *request));

#endif
