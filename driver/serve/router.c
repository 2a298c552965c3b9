#include "serve/router.h"

#include <string.h>

#include "serve/handlers.h"

#define OIP "/v2/models/{m}"

static const route routes[] = {
    {"POST", "/predict", ROUTE_PREDICT, false, handle_predict},
    {"GET", "/healthz", ROUTE_HEALTH, true, handle_healthz},
    {"GET", "/metrics", ROUTE_METRICS, false, handle_metrics},
    {"GET", "/", ROUTE_HOME, false, handle_home},
    {"GET", "/assets/{*}", ROUTE_ASSET, false, handle_asset},
    {"GET", "/tickers", ROUTE_TICKERS, false, handle_tickers},
    {"GET", "/tickers/{*}", ROUTE_TICKER, false, handle_ticker},
    {"GET", "/model-card", ROUTE_MODEL_CARD, false, handle_model_card},
    {"GET", "/openapi.json", ROUTE_OPENAPI, false, handle_openapi},
    {"POST", OIP "/infer", ROUTE_OIP_INFER, false, handle_oip_infer},
    {"POST", OIP "/versions/{v}/infer", ROUTE_OIP_INFER, false, handle_oip_infer},
    {"GET", "/v2", ROUTE_OIP_METADATA, false, handle_oip_server},
    {"GET", "/v2/health/live", ROUTE_OIP_HEALTH, true, handle_oip_live},
    {"GET", "/v2/health/ready", ROUTE_OIP_HEALTH, true, handle_oip_ready},
    {"GET", OIP, ROUTE_OIP_METADATA, false, handle_oip_model},
    {"GET", OIP "/versions/{v}", ROUTE_OIP_METADATA, false, handle_oip_model},
    {"GET", OIP "/ready", ROUTE_OIP_HEALTH, false, handle_oip_model_ready},
    {"GET", OIP "/versions/{v}/ready", ROUTE_OIP_HEALTH, false, handle_oip_model_ready},
    {"GET", OIP "/stats", ROUTE_OIP_STATS, false, handle_oip_stats},
    {"GET", OIP "/versions/{v}/stats", ROUTE_OIP_STATS, false, handle_oip_stats},
    {"POST", "/admin/reload", ROUTE_RELOAD, true, handle_reload}, /* has a token of its own */
};

/* Whether the pattern's segment, which ends at the next slash, is this one. */
static bool segment_matches(const char **pattern, const char *segment) {
    size_t length = strcspn(*pattern, "/");
    bool any = length == 3 && (*pattern)[0] == '{';
    bool same = any || (strlen(segment) == length && memcmp(*pattern, segment, length) == 0);
    *pattern += length;
    return same;
}

static bool path_matches(const char *pattern, const request *request) {
    for (int i = 0; i < request->segments; i++) {
        if (*pattern++ != '/' || !segment_matches(&pattern, request->segment[i])) {
            return false;
        }
    }
    return *pattern == '\0';
}

static bool method_matches(const char *method, const char *wanted) {
    return strcmp(method, wanted) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(wanted, "GET") == 0);
}

route_match router_find(request *request) {
    bool known = false;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!path_matches(routes[i].pattern, request)) {
            continue;
        }
        known = true;
        if (method_matches(request->method, routes[i].method)) {
            request->route = &routes[i];
            return ROUTE_FOUND;
        }
    }
    return known ? ROUTE_WRONG_METHOD : ROUTE_UNKNOWN;
}

const char *router_allowed(const request *request) {
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (path_matches(routes[i].pattern, request)) {
            return strcmp(routes[i].method, "GET") == 0 ? "GET, HEAD" : routes[i].method;
        }
    }
    return "";
}
