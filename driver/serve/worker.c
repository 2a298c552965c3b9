#define _GNU_SOURCE
#include "serve/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "serve/response.h"
#include "serve/router.h"
#include "serve/server.h"

enum {
    TURN_MS = 1000, /* the longest sleep: deadlines and new models are looked at this often */
    /* What libmicrohttpd keeps beside a request's head in the same memory: at most 64 fields and 16
     * arguments at 56 bytes each, and the head of the answer. */
    POOL_RESERVE = 8192
};

/* The worker whose thread this is. */
static _Thread_local worker *running;

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
    (void)version;
    if (!request) {
        return MHD_NO; /* no memory */
    }
    if (request->state == REQUEST_NEW) {
        request_begin(request, method);
        return MHD_YES;
    }
    if (*size > 0) {
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
        connection->answered++;
        if (connection->half_closed) {
            shutdown(connection->fd, SHUT_RD); /* so that libmicrohttpd reads again */
        }
    }
    request_free(request);
    *user = NULL;
}

static connection *find_connection(worker *worker, int fd) {
    return fd >= 0 && fd < worker->fds ? worker->by_fd[fd] : NULL;
}

static bool remember(worker *worker, connection *connection) {
    if (connection->fd >= worker->fds) {
        const int fds = connection->fd + 64;
        struct connection **table = realloc(worker->by_fd, (size_t)fds * sizeof(void *));
        if (!table) {
            return false;
        }
        memset(table + worker->fds, 0, (size_t)(fds - worker->fds) * sizeof(void *));
        worker->by_fd = table;
        worker->fds = fds;
    }
    worker->by_fd[connection->fd] = connection;
    connection->next = worker->connections;
    if (connection->next) {
        connection->next->previous = connection;
    }
    worker->connections = connection;
    return true;
}

static void forget(worker *worker, connection *connection) {
    worker->by_fd[connection->fd] = NULL;
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

/* ---- What arrives ---------------------------------------------------------------------------- */

/* The answer to a message that libmicrohttpd is not going to see in full; then the connection ends.
 * Not when libmicrohttpd has begun an answer of its own. */
static void send_refusal(worker *worker, connection *connection) {
    const framing *framing = &connection->framing;
    request *request = connection->request;
    char body[128], answer[512], rest[4096];
    if (connection->refused || (request && request->status)) {
        return;
    }
    connection->refused = true;
    const int size = snprintf(body, sizeof body, "{\"error\": \"%s\"}\n", framing->reason);
    const int all =
        snprintf(answer, sizeof answer,
                 "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                 "Content-Length: %d\r\nConnection: close\r\n\r\n%s",
                 framing->status, MHD_get_reason_phrase_for((unsigned)framing->status), size, body);
    ssize_t done = send(connection->fd, answer, (size_t)all, MSG_DONTWAIT | MSG_NOSIGNAL);
    /* What has arrived is read, so that closing does not reset the connection under the answer. */
    for (int i = 0; done > 0 && i < 64; i++) {
        done = recvfrom(connection->fd, rest, sizeof rest, MSG_DONTWAIT, NULL, NULL);
    }
    if (request) {
        request->status = framing->status; /* on_completed tells of it */
        request->response_size = (size_t)size;
        return;
    }
    const int64_t now = monotonic_ns(), duration = now - connection->since_ns;
    metrics_request(&worker->metrics, ROUTE_OTHER, framing->status, duration);
    access_log_add(&worker->log,
                   &(access_entry){.method = "",
                                   .uri = "",
                                   .peer = connection->peer,
                                   .status = framing->status,
                                   .response_size = (size_t)size,
                                   .duration_ns = duration},
                   now);
}

/* libmicrohttpd has no hook for what it reads, but it reads with recv, and a program's own recv
 * comes before libc's. Every byte of the workers' connections so passes framing_scan first. To
 * libmicrohttpd a refused connection looks like one that the client has closed. */
__attribute__((visibility("default"))) ssize_t recv(int fd, void *buffer, size_t size, int flags) {
    connection *connection = running ? find_connection(running, fd) : NULL;
    if (connection && connection->framing.status) {
        send_refusal(running, connection);
        return 0;
    }
    const ssize_t got = recvfrom(fd, buffer, size, flags, NULL, NULL);
    if (got == 0 && connection && connection->answered < connection->framing.messages) {
        connection->half_closed = true; /* libmicrohttpd would close it without an answer */
        errno = EAGAIN;
        return -1;
    }
    if (got <= 0 || !connection) {
        return got;
    }
    const server_options *options = &running->server->options;
    const framing_limits limits = {(size_t)options->header_limit, (size_t)options->body_limit};
    connection->heard_ns = monotonic_ns();
    const size_t good = framing_scan(&connection->framing, buffer, (size_t)got, &limits);
    if (!connection->framing.status) {
        return got;
    }
    if (good == 0) {
        send_refusal(running, connection);
    } else {
        shutdown(fd, SHUT_RD); /* so that libmicrohttpd reads again after the messages before it */
    }
    return (ssize_t)good;
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

void worker_give(worker *worker, connection *connection) {
    pthread_mutex_lock(&worker->mutex);
    connection->next = worker->arrived;
    worker->arrived = connection;
    pthread_mutex_unlock(&worker->mutex);
    worker_wake(worker);
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
    running = worker;
    connection->since_ns = connection->heard_ns = monotonic_ns();
    if (!remember(worker, connection)) {
        close(connection->fd);
        server_forget(worker->server, connection);
        free(connection);
        return;
    }
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
    request *reloaded[WORKER_INBOX];
    ssize_t got = read(worker->wake_fd, &count, sizeof count);
    (void)got; /* empty when nobody called */
    pthread_mutex_lock(&worker->mutex);
    connection *arrived = worker->arrived;
    const int32_t reloaded_count = worker->reloaded_count;
    memcpy(reloaded, worker->reloaded, sizeof reloaded);
    worker->arrived = NULL;
    worker->reloaded_count = 0;
    pthread_mutex_unlock(&worker->mutex);
    while (arrived) {
        connection *connection = arrived;
        arrived = connection->next;
        take_connection(worker, connection);
    }
    for (int32_t i = 0; i < reloaded_count; i++) {
        worker_resume(reloaded[i]);
    }
}

/* ---- The loop -------------------------------------------------------------------------------- */

/* Of an end that arrives together with the last bytes epoll tells once, and libmicrohttpd, when a
 * read fills less than its buffer, does not read again to find it. */
static bool has_ended(const connection *connection) {
    char byte;
    return recvfrom(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) == 0;
}

/* A client that sends a byte now and then must not keep its connection for ever: it has
 * idle_seconds from byte to byte, and request_seconds from the end of one request to the end of the
 * next. While closing, a connection without a request ends at once. */
static void end_stalled(worker *worker, int64_t now, bool closing) {
    const int64_t second = 1000000000, limit = worker->server->options.request_seconds * second;
    const int64_t idle = worker->server->options.idle_seconds * second;
    for (connection *c = worker->connections; c; c = c->next) {
        const bool waiting = c->request && c->request->state == REQUEST_WAITING;
        const bool inside = framing_is_inside(&c->framing);
        const bool stalled = !waiting && (now - c->since_ns > limit || now - c->heard_ns > idle);
        if (stalled && inside && !c->framing.status) {
            c->framing.status = 408;
            c->framing.reason = "the request took too long to arrive";
            send_refusal(worker, c);
        }
        if (stalled || (closing && !c->request && !inside)) {
            c->answered = c->framing.messages; /* none is waited for any more */
            shutdown(c->fd, SHUT_RDWR);        /* libmicrohttpd sees the end and closes it */
            c->since_ns = c->heard_ns = now;
            counter_add(&worker->metrics.stalled, stalled);
        } else if (!c->request && has_ended(c)) {
            shutdown(c->fd, SHUT_RD); /* so that libmicrohttpd reads again */
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

/* Strictness 0: what framing.c lets pass needs no more of it. Memory: libmicrohttpd reads a head
 * into half of it. No timeout: end_stalled has its own. */
static struct MHD_Daemon *start_daemon(worker *worker, const server_options *options) {
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO |
            MHD_USE_ERROR_LOG,
        0, NULL, NULL, on_request, worker, MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
        MHD_OPTION_STRICT_FOR_CLIENT, 0, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)options->connections + 1, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        2 * (size_t)options->header_limit + POOL_RESERVE, MHD_OPTION_URI_LOG_CALLBACK,
        on_request_line, worker, MHD_OPTION_NOTIFY_COMPLETED, on_completed, worker,
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
    free(worker->by_fd);
    if (worker->server) {
        close(worker->wake_fd);
        pthread_mutex_destroy(&worker->mutex);
    }
}
