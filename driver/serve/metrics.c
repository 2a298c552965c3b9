#define _POSIX_C_SOURCE 200809L
#include "serve/metrics.h"

#include <stdio.h>
#include <unistd.h>

static const char *const route_label[ROUTES] = {
    [ROUTE_OTHER] = "other",
    [ROUTE_HOME] = "home",
    [ROUTE_ASSET] = "asset",
    [ROUTE_PREDICT] = "predict",
    [ROUTE_TICKERS] = "tickers",
    [ROUTE_TICKER] = "ticker",
    [ROUTE_MODEL_CARD] = "model_card",
    [ROUTE_HEALTH] = "health",
    [ROUTE_METRICS] = "metrics",
    [ROUTE_OPENAPI] = "openapi",
    [ROUTE_OIP_METADATA] = "oip_metadata",
    [ROUTE_OIP_HEALTH] = "oip_health",
    [ROUTE_OIP_INFER] = "oip_infer",
    [ROUTE_OIP_STATS] = "oip_stats",
    [ROUTE_RELOAD] = "reload",
};

/* 0: the connection ended without an answer. Those not in the list are counted as the last. */
static const int status_code[METRICS_STATUSES] = {200, 0,   202, 304, 400, 401, 403, 404,
                                                  405, 406, 408, 409, 411, 413, 414, 415,
                                                  417, 422, 429, 431, 501, 503, 505, 500};

/* Seconds; the same limits in nanoseconds decide. */
static const char *const duration_limit[METRICS_BUCKETS] = {
    "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.002", "0.003", "0.005",
    "0.01",    "0.025",  "0.05",    "0.1",    "0.25",  "1",     "5"};
static const int64_t duration_limit_ns[METRICS_BUCKETS] = {
    50000,    100000,   250000,   500000,    1000000,   2000000,    3000000,   5000000,
    10000000, 25000000, 50000000, 100000000, 250000000, 1000000000, 5000000000};

/* 1, 2, 4, ..., 1024 windows. */
static int size_bucket(int64_t windows) {
    int bucket = 0;
    while (bucket < METRICS_SIZES && windows > (INT64_C(1) << bucket)) {
        bucket++;
    }
    return bucket;
}

void metrics_request(metrics *metrics, route_id route, int status, int64_t duration_ns) {
    int code = 0, bucket = 0;
    while (code < METRICS_STATUSES - 1 && status_code[code] != status) {
        code++;
    }
    while (bucket < METRICS_BUCKETS && duration_ns > duration_limit_ns[bucket]) {
        bucket++;
    }
    counter_add(&metrics->requests[route][code], 1);
    counter_add(&metrics->duration_buckets[route][bucket], 1);
    counter_add(&metrics->duration_ns[route], (uint64_t)duration_ns);
}

void metrics_batch(metrics *metrics, int64_t windows, int64_t duration_ns) {
    counter_add(&metrics->batch_buckets[size_bucket(windows)], 1);
    counter_add(&metrics->batches, 1);
    counter_add(&metrics->windows, (uint64_t)windows);
    counter_add(&metrics->batch_ns, (uint64_t)duration_ns);
}

static uint64_t read_counter(const counter *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_sum(metrics *sum, const metrics *part) {
    /* The struct is nothing but counters. */
    counter *to = (counter *)sum;
    const counter *from = (const counter *)part;
    uint64_t last = read_counter(&sum->last_inference_ms);
    for (size_t i = 0; i < sizeof *sum / sizeof *to; i++) {
        counter_add(&to[i], read_counter(&from[i]));
    }
    uint64_t other = read_counter(&part->last_inference_ms);
    atomic_store_explicit(&sum->last_inference_ms, last > other ? last : other,
                          memory_order_relaxed);
}

static void head(text *out, const char *name, const char *type, const char *help) {
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(text *out, const char *name, const char *type, const char *help, double value) {
    head(out, name, type, help);
    text_printf(out, "%s %.17g\n", name, value);
}

static void write_requests(text *out, const metrics *sum) {
    head(out, "rp_http_requests_total", "counter",
         "Requests by route and status code; code 0 had no answer.");
    for (int route = 0; route < ROUTES; route++) {
        for (int code = 0; code < METRICS_STATUSES; code++) {
            uint64_t count = read_counter(&sum->requests[route][code]);
            if (count > 0) {
                text_printf(out, "rp_http_requests_total{route=\"%s\",code=\"%d\"} %llu\n",
                            route_label[route], status_code[code], (unsigned long long)count);
            }
        }
    }
}

static void write_durations(text *out, const metrics *sum) {
    static const char name[] = "rp_http_request_duration_seconds";
    head(out, name, "histogram", "Time from the request line to the last byte of the answer.");
    for (int route = 0; route < ROUTES; route++) {
        uint64_t count = 0;
        for (int bucket = 0; bucket <= METRICS_BUCKETS; bucket++) {
            count += read_counter(&sum->duration_buckets[route][bucket]);
            text_printf(out, "%s_bucket{route=\"%s\",le=\"%s\"} %llu\n", name, route_label[route],
                        bucket < METRICS_BUCKETS ? duration_limit[bucket] : "+Inf",
                        (unsigned long long)count);
        }
        text_printf(out, "%s_sum{route=\"%s\"} %.9f\n%s_count{route=\"%s\"} %llu\n", name,
                    route_label[route], (double)read_counter(&sum->duration_ns[route]) * 1e-9, name,
                    route_label[route], (unsigned long long)count);
    }
}

static void write_batches(text *out, const metrics *sum) {
    head(out, "rp_batch_windows", "histogram", "Windows in one run of the model.");
    uint64_t count = 0;
    for (int bucket = 0; bucket <= METRICS_SIZES; bucket++) {
        count += read_counter(&sum->batch_buckets[bucket]);
        if (bucket < METRICS_SIZES) {
            text_printf(out, "rp_batch_windows_bucket{le=\"%d\"} %llu\n", 1 << bucket,
                        (unsigned long long)count);
        } else {
            text_printf(out, "rp_batch_windows_bucket{le=\"+Inf\"} %llu\n",
                        (unsigned long long)count);
        }
    }
    text_printf(out, "rp_batch_windows_sum %llu\nrp_batch_windows_count %llu\n",
                (unsigned long long)read_counter(&sum->windows), (unsigned long long)count);
    single(out, "rp_model_seconds_total", "counter", "Time spent in the model.",
           (double)read_counter(&sum->batch_ns) * 1e-9);
    single(out, "rp_lookups_total", "counter", "Predictions answered from the table.",
           (double)read_counter(&sum->lookups));
}

static double resident_bytes(void) {
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%*u %llu", &pages) != 1) {
            pages = 0;
        }
        fclose(file);
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

void metrics_write(text *out, const metrics *sum, const metrics_gauges *gauges) {
    write_requests(out, sum);
    write_durations(out, sum);
    write_batches(out, sum);
    single(out, "rp_connections", "gauge", "Open connections.", (double)gauges->connections);
    single(out, "rp_connections_refused_total", "counter",
           "Connections closed at once because a limit was reached.",
           (double)gauges->refused_connections);
    single(out, "rp_connections_stalled_total", "counter",
           "Connections closed because a request took too long to arrive or to be read.",
           (double)read_counter(&sum->stalled));
    single(out, "rp_access_log_dropped_lines_total", "counter",
           "Lines of the access log that were dropped because it could not be written in time.",
           (double)gauges->dropped_log_lines);
    single(out, "rp_ready", "gauge", "1 while requests are welcome, 0 while draining.",
           gauges->ready);
    head(out, "rp_reloads_total", "counter", "Reloads of checkpoint and prices by result.");
    text_printf(
        out, "rp_reloads_total{result=\"ok\"} %lld\nrp_reloads_total{result=\"failed\"} %lld\n",
        (long long)(gauges->reloads - gauges->reload_failures), (long long)gauges->reload_failures);
    head(out, "rp_model_info", "gauge", "The model that answers now.");
    text_printf(out, "rp_model_info{model_version=\"%s\",program_version=\"%s\"} 1\n",
                gauges->model_version, gauges->program_version);
    single(out, "process_start_time_seconds", "gauge", "Start of the process since 1970.",
           gauges->start_time_seconds);
    single(out, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
}
