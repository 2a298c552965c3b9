/* Counters of one worker. Only its own thread writes them, so an addition is a load and a store;
 * /metrics and /v2/models/.../stats read the sum over workers. */
#ifndef SERVE_METRICS_H
#define SERVE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/text.h"

/* Routes as labels of the metrics; router.c has the table. */
typedef enum route_id {
    ROUTE_OTHER, /* no such path, or a request that never named one */
    ROUTE_HOME,
    ROUTE_ASSET,
    ROUTE_PREDICT,
    ROUTE_TICKERS,
    ROUTE_TICKER,
    ROUTE_MODEL_CARD,
    ROUTE_HEALTH,
    ROUTE_METRICS,
    ROUTE_OPENAPI,
    ROUTE_OIP_METADATA,
    ROUTE_OIP_HEALTH,
    ROUTE_OIP_INFER,
    ROUTE_OIP_STATS,
    ROUTE_RELOAD,
    ROUTES
} route_id;

enum { METRICS_STATUSES = 24, METRICS_BUCKETS = 15, METRICS_SIZES = 11 };

typedef atomic_uint_fast64_t counter;

static inline void counter_add(counter *counter, uint64_t amount) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

typedef struct metrics {
    counter requests[ROUTES][METRICS_STATUSES];
    counter duration_buckets[ROUTES][METRICS_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    counter duration_ns[ROUTES];
    counter batch_buckets[METRICS_SIZES + 1]; /* by windows of one run of the model */
    counter batches, windows, batch_ns;
    counter inferences, inference_failures; /* requests for predictions that were computed */
    counter queue_ns, inference_ns;         /* sums over those requests */
    counter last_inference_ms;              /* since 1970 */
    counter lookups;                        /* predictions found in the table */
    counter stalled;                        /* connections closed for taking too long */
} metrics;

/* Counts one answered request. */
void metrics_request(metrics *metrics, route_id route, int status, int64_t duration_ns);
/* Counts one run of the model. */
void metrics_batch(metrics *metrics, int64_t windows, int64_t duration_ns);

/* Adds `part` to `sum`. */
void metrics_sum(metrics *sum, const metrics *part);

/* What is not a counter of workers. */
typedef struct metrics_gauges {
    const char *program_version, *model_version;
    double start_time_seconds;
    int ready;
    int64_t connections, refused_connections;
    uint64_t dropped_log_lines;
    int64_t reloads, reload_failures;
} metrics_gauges;

/* Prometheus text format 0.0.4. */
void metrics_write(text *out, const metrics *sum, const metrics_gauges *gauges);

#endif
