/* Answers. Every handler sends exactly one of these, or waits and sends it later. */
#ifndef SERVE_RESPONSE_H
#define SERVE_RESPONSE_H

#include "base/json.h"
#include "serve/request.h"

enum { RESPONSE_HEADERS = 3 };

typedef struct response_header {
    const char *name, *value;
} response_header;

typedef struct response {
    int status;
    const char *type; /* Content-Type */
    const void *data; /* [size] copied, unless `lasting` */
    size_t size;
    bool lasting;                              /* data lives as long as the program */
    bool close;                                /* the connection ends with this answer */
    response_header headers[RESPONSE_HEADERS]; /* name NULL: unused */
} response;

extern const char content_json[];

void response_send(request *request, const response *response);
/* Sends the finished value and frees it. */
void response_send_json(request *request, int status, json *json);
/* {"error": "..."} */
void response_send_error(request *request, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, and the connection ends: what follows on it can't be trusted or isn't wanted. */
void response_send_refusal(request *request, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
