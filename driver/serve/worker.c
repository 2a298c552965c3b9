#define _GNU_SOURCE
#include "serve/worker.h"

#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "serve/response.h"
#include "serve/router.h"
#include "serve/server.h"

enum { TURN_MS = 1000 }; /* the longest sleep: deadlines and new models are looked at this often */

static connection *connection_of(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

void worker_suspend(request *request) {
    request->state = REQUEST_WAITING;
    MHD_suspend_connection(request->connection);
}

void worker_resume(request *request) {
    MHD_resume_connection(request->connection);
}

/* ---- libmicrohttpd's callbacks, all on the worker's thread ---------------------------------- */

static void *on_request_line(void *context, const char *uri, struct MHD_Connection *mhd) {
    request *request = request_create(context, mhd, uri);
    connection *connection = connection_of(mhd);
    if (request && connection) {
        request->peer = connection->peer;
        connection->request = request;
    }
    return request;
}

static void answer(request *request) {
    if (request->state == REQUEST_WAITING) {
        request->finish(request);
    } else if (request_may_go_on(request)) {
        request->route->handle(request);
    }
}

/* libmicrohttpd calls it with the headers, with each piece of the body, at the body's end, and
 * again when a suspended request is resumed. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **user) {
    request *request = *user;
    (void)context;
    (void)mhd;
    (void)url;
    if (!request) {
        return MHD_NO; /* no memory */
    }
    if (request->state == REQUEST_NEW) {
        if (request_begin(request, method, version)) {
            return MHD_YES;
        }
    } else if (*size > 0) {
        request_receive(request, data, *size);
        *size = 0;
        return MHD_YES;
    } else {
        answer(request);
    }
    return request->state == REQUEST_WAITING || request->status ? MHD_YES : MHD_NO;
}

static void on_completed(void *context, struct MHD_Connection *mhd, void **user,
                         enum MHD_RequestTerminationCode code) {
    worker *worker = context;
    request *request = *user;
    connection *connection = connection_of(mhd);
    (void)code;
    if (!request) {
        return;
    }
    const int64_t now = monotonic_ns(), duration = now - request->began_ns;
    metrics_request(&worker->metrics, request->route ? request->route->id : ROUTE_OTHER,
                    request->status, duration);
    access_log_add(&worker->log,
                   &(access_entry){.method = request->method,
                                   .uri = request->uri,
                                   .peer = request->peer ? request->peer : "",
                                   .user_agent = request->headers.user_agent,
                                   .trace = request->headers.trace,
                                   .status = request->status,
                                   .request_size = request->body_size,
                                   .response_size = request->response_size,
                                   .duration_ns = duration},
                   now);
    if (connection) {
        connection->request = NULL;
        connection->since_ns = now;
    }
    request_free(request);
    *user = NULL;
}

static connection *find_connection(worker *worker, int fd) {
    connection *connection = worker->connections;
    while (connection && connection->fd != fd) {
        connection = connection->next;
    }
    return connection;
}

static void forget(worker *worker, connection *connection) {
    if (connection->previous) {
        connection->previous->next = connection->next;
    } else {
        worker->connections = connection->next;
    }
    if (connection->next) {
        connection->next->previous = connection->previous;
    }
    server_forget(worker->server, connection);
    free(connection);
}

static void on_connection(void *context, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
    worker *worker = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        *socket_context = info ? find_connection(worker, info->connect_fd) : NULL;
    } else if (*socket_context) {
        forget(worker, *socket_context);
        *socket_context = NULL;
    }
}

static void on_message(void *context, const char *format, va_list arguments) {
    (void)context; /* what clients do wrong is in the access log and the metrics */
    (void)format;
    (void)arguments;
}

/* ---- The inbox ------------------------------------------------------------------------------- */

void worker_wake(worker *worker) {
    const uint64_t one = 1;
    ssize_t written = write(worker->wake_fd, &one, sizeof one);
    (void)written; /* fails only when the counter is full, and then the worker wakes anyway */
}

bool worker_give(worker *worker, connection *connection) {
    pthread_mutex_lock(&worker->mutex);
    const bool room = worker->arrived_count < WORKER_INBOX;
    if (room) {
        worker->arrived[worker->arrived_count++] = connection;
    }
    pthread_mutex_unlock(&worker->mutex);
    worker_wake(worker);
    return room;
}

void worker_give_reloaded(request *request) {
    worker *worker = request->worker;
    pthread_mutex_lock(&worker->mutex);
    /* There is room: the model store lets fewer requests wait. */
    worker->reloaded[worker->reloaded_count++] = request;
    pthread_mutex_unlock(&worker->mutex);
    worker_wake(worker);
}

static void take_connection(worker *worker, connection *connection) {
    struct connection *stale = find_connection(worker, connection->fd);
    if (stale) {
        forget(worker, stale); /* libmicrohttpd closed it without having begun it */
    }
    connection->since_ns = monotonic_ns();
    connection->next = worker->connections;
    if (connection->next) {
        connection->next->previous = connection;
    }
    worker->connections = connection;
    if (MHD_add_connection(worker->daemon, connection->fd, (struct sockaddr *)&connection->address,
                           connection->address_size) != MHD_YES) {
        stale = find_connection(worker, connection->fd);
        if (stale) {
            forget(worker, stale);
        }
    }
}

static void empty_inbox(worker *worker) {
    uint64_t count;
    connection *arrived[WORKER_INBOX];
    request *reloaded[WORKER_INBOX];
    ssize_t got = read(worker->wake_fd, &count, sizeof count);
    (void)got; /* empty when nobody called */
    pthread_mutex_lock(&worker->mutex);
    const int32_t arrived_count = worker->arrived_count, reloaded_count = worker->reloaded_count;
    memcpy(arrived, worker->arrived, sizeof arrived);
    memcpy(reloaded, worker->reloaded, sizeof reloaded);
    worker->arrived_count = worker->reloaded_count = 0;
    pthread_mutex_unlock(&worker->mutex);
    for (int32_t i = 0; i < arrived_count; i++) {
        take_connection(worker, arrived[i]);
    }
    for (int32_t i = 0; i < reloaded_count; i++) {
        worker_resume(reloaded[i]);
    }
}

/* ---- The loop -------------------------------------------------------------------------------- */

/* libmicrohttpd's timeout begins anew with every byte, so a client that sends one now and then
 * would keep its connection for ever: a connection has request_seconds from the end of one request
 * to the end of the next. While closing, a connection without a request ends at once. */
static void end_stalled(worker *worker, int64_t now, bool closing) {
    const int64_t limit = worker->server->options.request_seconds * INT64_C(1000000000);
    for (connection *c = worker->connections; c; c = c->next) {
        const bool waiting = c->request && c->request->state == REQUEST_WAITING;
        const bool stalled = !waiting && now - c->since_ns > limit;
        if (stalled || (closing && !c->request)) {
            shutdown(c->fd, SHUT_RDWR); /* libmicrohttpd sees the end and closes it */
            c->since_ns = now;
            counter_add(&worker->metrics.stalled, stalled);
        }
    }
}

static void refresh_snapshot(worker *worker) {
    const uint64_t generation = model_store_generation(worker->server->store);
    if (worker->snapshot && worker->generation == generation) {
        return;
    }
    snapshot *old = worker->snapshot;
    worker->generation = generation;
    worker->snapshot = model_store_hold(worker->server->store);
    snapshot_release(old);
}

static void sleep_until_work(worker *worker, bool closing) {
    MHD_UNSIGNED_LONG_LONG wanted;
    int timeout = closing ? 20 : worker->log.used > 0 ? ACCESS_LOG_DELAY_MS : TURN_MS;
    if (MHD_get_timeout(worker->daemon, &wanted) == MHD_YES && wanted < (unsigned)timeout) {
        timeout = (int)wanted;
    }
    struct pollfd events[] = {{.fd = worker->epoll_fd, .events = POLLIN},
                              {.fd = worker->wake_fd, .events = POLLIN}};
    poll(events, 2, timeout);
    if (events[1].revents) {
        empty_inbox(worker);
    }
}

static void *run_worker(void *argument) {
    worker *worker = argument;
    server *server = worker->server;
    bool more = false;
    for (;;) {
        const bool closing = atomic_load(&server->closing);
        if ((closing && !worker->connections) || atomic_load(&server->cut_off)) {
            break;
        }
        if (!more) {
            sleep_until_work(worker, closing);
        }
        refresh_snapshot(worker);
        MHD_run_wait(worker->daemon, 0);
        /* After a batch the resumed connections want a turn at once; waiting for libmicrohttpd's
         * own signal of it can take until the timeout. */
        more = worker->batcher.first != NULL;
        batcher_run(&worker->batcher);
        const int64_t now = monotonic_ns();
        access_log_flush(&worker->log, now, false);
        if (closing || now - worker->checked_ns > INT64_C(500000000)) {
            end_stalled(worker, now, closing);
            worker->checked_ns = now;
        }
    }
    access_log_flush(&worker->log, monotonic_ns(), true);
    return NULL;
}

/* Strictness 0: libmicrohttpd 0.9.75 at 1 differs only in answering a missing Host itself, with a
 * page whose head is sent twice; request_begin answers it in full. */
static struct MHD_Daemon *start_daemon(worker *worker, const server_options *options) {
    return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME |
                                MHD_USE_TURBO | MHD_USE_ERROR_LOG,
                            0, NULL, NULL, on_request, worker, MHD_OPTION_EXTERNAL_LOGGER,
                            on_message, NULL, MHD_OPTION_STRICT_FOR_CLIENT, 0,
                            MHD_OPTION_CONNECTION_LIMIT, (unsigned)options->connections + 1,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)options->header_limit,
                            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)options->idle_seconds,
                            MHD_OPTION_URI_LOG_CALLBACK, on_request_line, worker,
                            MHD_OPTION_NOTIFY_COMPLETED, on_completed, worker,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, worker, MHD_OPTION_END);
}

bool worker_start(worker *worker, struct server *server, int32_t index, error *error) {
    worker->server = server;
    worker->index = index;
    worker->log.writer = server->log;
    pthread_mutex_init(&worker->mutex, NULL);
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    refresh_snapshot(worker);
    if (!batcher_create(&worker->batcher, index, &worker->metrics, error)) {
        return false;
    }
    worker->daemon = start_daemon(worker, &server->options);
    const union MHD_DaemonInfo *info =
        worker->daemon ? MHD_get_daemon_info(worker->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || worker->wake_fd < 0) {
        return error_set(error, "libmicrohttpd can't start a worker");
    }
    worker->epoll_fd = info->epoll_fd;
    worker->started = pthread_create(&worker->thread, NULL, run_worker, worker) == 0;
    return worker->started || error_set(error, "can't start a worker's thread");
}

/* Suspended connections have to be resumed before a daemon may stop. */
static void cut_off(worker *worker) {
    empty_inbox(worker);
    while (batcher_run(&worker->batcher)) {
    }
    MHD_stop_daemon(worker->daemon);
    access_log_flush(&worker->log, monotonic_ns(), true);
}

void worker_join(worker *worker) {
    if (worker->started) {
        pthread_join(worker->thread, NULL);
    }
    if (worker->daemon) {
        cut_off(worker);
    }
    batcher_free(&worker->batcher);
    snapshot_release(worker->snapshot);
    if (worker->server) {
        close(worker->wake_fd);
        pthread_mutex_destroy(&worker->mutex);
    }
}
