/* The routes: method and path to handler. */
#ifndef SERVE_ROUTER_H
#define SERVE_ROUTER_H

#include "serve/request.h"

typedef struct route {
    const char *method;  /* "GET" answers HEAD too */
    const char *pattern; /* "/v2/models/{m}/infer"; {m} is the model's name, {*} any segment */
    route_id id;
    bool open; /* answered without a token: health */
    void (*handle)(request *request);
} route;

typedef enum route_match { ROUTE_FOUND, ROUTE_UNKNOWN, ROUTE_WRONG_METHOD } route_match;

/* Finds request->route by its method and segments. */
route_match router_find(request *request);

/* The methods that the path knows, for the header Allow. */
const char *router_allowed(const request *request);

#endif
