/* The service: its options, its listening socket, its workers, signals and the end.
 *
 * SIGHUP reloads. SIGTERM and SIGINT drain: readiness answers 503 at once and every answer closes
 * its connection; after SERVER_NOTICE_MS no connection is accepted; requests in flight are
 * answered; after SERVER_DRAIN_MS what is left is cut off. A second SIGTERM or SIGINT ends at once.
 */
#ifndef SERVE_SERVER_H
#define SERVE_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "serve/model_store.h"
#include "serve/worker.h"

enum {
    SERVER_NOTICE_MS = 1500, /* load balancers see readiness go before the socket does */
    SERVER_DRAIN_MS = 7000,  /* Cloud Run kills after 10 s, and 8 s are promised */
    SERVER_WORKERS_MOST = 64
};

typedef struct server_options {
    const char *address; /* to listen on; "127.0.0.1" */
    int64_t port;        /* 8080; 0: any, printed at start */
    int64_t workers;     /* 0: one a core */
    int64_t connections; /* open at once, in all */
    int64_t connections_per_ip;
    int64_t body_limit;      /* bytes */
    int64_t header_limit;    /* bytes */
    int64_t idle_seconds;    /* without a byte */
    int64_t request_seconds; /* from one request's end to the next one's */
    const char *token;       /* of all routes but health; NULL: open */
    const char *admin_token; /* of /admin/reload; NULL: off */
    const char *access_log;  /* file, "-" or "off" */
    snapshot_sources sources;
} server_options;

/* How many connections each address has. */
typedef struct peer_count {
    char peer[PEER_SIZE];
    int64_t count;
} peer_count;

typedef struct server {
    server_options options;
    model_store *store;
    worker *workers; /* [worker_count] */
    int32_t worker_count;
    int listen_fd, signal_fd;
    log_writer *log;   /* owned; NULL: off */
    double start_time; /* seconds since 1970 */
    atomic_bool draining, closing, cut_off;
    atomic_llong refused;

    pthread_mutex_t mutex; /* guards the two below */
    peer_count *peers;     /* [options.connections] */
    int64_t open;          /* connections */
} server;

/* Serves until a signal; true when everything in flight was answered. */
bool server_run(const server_options *options, error *error);

static inline bool server_is_draining(const server *server) {
    return atomic_load_explicit(&server->draining, memory_order_relaxed);
}

int64_t server_open_connections(server *server);
/* The counters of all workers together. */
void server_sum_metrics(server *server, metrics *sum);

/* A worker's word that a connection has ended. */
void server_forget(server *server, const connection *connection);

#endif
