#define _GNU_SOURCE
#include "serve/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "serve/event_log.h"

/* ---- Connections ----------------------------------------------------------------------------- */

static peer_count *find_peer(server *server, const char *peer) {
    peer_count *free_place = NULL;
    for (int64_t i = 0; i < server->options.connections; i++) {
        peer_count *at = &server->peers[i];
        if (at->count == 0) {
            free_place = free_place ? free_place : at;
        } else if (strcmp(at->peer, peer) == 0) {
            return at;
        }
    }
    return free_place;
}

/* Counts a connection in; false when one of the limits is reached. */
static bool admit(server *server, const char *peer) {
    pthread_mutex_lock(&server->mutex);
    peer_count *at = find_peer(server, peer);
    const bool ok = server->open < server->options.connections && at &&
                    at->count < server->options.connections_per_ip;
    if (ok) {
        snprintf(at->peer, sizeof at->peer, "%s", peer);
        at->count++;
        server->open++;
    }
    pthread_mutex_unlock(&server->mutex);
    return ok;
}

void server_forget(server *server, const connection *connection) {
    pthread_mutex_lock(&server->mutex);
    peer_count *at = find_peer(server, connection->peer);
    if (at && at->count > 0) {
        at->count--;
    }
    server->open--;
    server->workers[connection->worker].share--;
    pthread_mutex_unlock(&server->mutex);
}

static worker *least_loaded(server *server) {
    pthread_mutex_lock(&server->mutex);
    worker *least = &server->workers[0];
    for (int32_t i = 1; i < server->worker_count; i++) {
        least = server->workers[i].share < least->share ? &server->workers[i] : least;
    }
    least->share++;
    pthread_mutex_unlock(&server->mutex);
    return least;
}

static void refuse(server *server, int fd) {
    static const char busy[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        "Content-Length: 34\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        "{\"error\": \"too many connections\"}\n";
    ssize_t sent = send(fd, busy, sizeof busy - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent; /* a courtesy */
    close(fd);
    atomic_fetch_add(&server->refused, 1);
}

static void accept_one(server *server) {
    connection *connection = calloc(1, sizeof *connection);
    if (!connection) {
        return;
    }
    connection->address_size = sizeof connection->address;
    connection->fd = accept4(server->listen_fd, (struct sockaddr *)&connection->address,
                             &connection->address_size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (connection->fd < 0) {
        free(connection);
        return;
    }
    if (getnameinfo((struct sockaddr *)&connection->address, connection->address_size,
                    connection->peer, sizeof connection->peer, NULL, 0, NI_NUMERICHOST) != 0) {
        snprintf(connection->peer, sizeof connection->peer, "unknown");
    }
    if (!admit(server, connection->peer)) {
        refuse(server, connection->fd);
        free(connection);
        return;
    }
    const int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    worker *worker = least_loaded(server);
    connection->worker = worker->index;
    worker_give(worker, connection);
}

static int listen_on(const server_options *options, char url[128], error *error) {
    char port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    const int on = 1;
    int fd = -1;
    snprintf(port, sizeof port, "%lld", (long long)options->port);
    int status = getaddrinfo(options->address, port, &hints, &found);
    if (status != 0) {
        error_set(error, "--address %s: %s", options->address, gai_strerror(status));
        return -1;
    }
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &size) != 0) {
        error_set(error, "can't listen on %s port %s: %s", options->address, port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        fd = -1;
    } else {
        char host[PEER_SIZE];
        getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
        snprintf(url, 128, strchr(host, ':') ? "http://[%s]:%s/" : "http://%s:%s/", host, port);
    }
    freeaddrinfo(found);
    return fd;
}

/* ---- Signals and the end --------------------------------------------------------------------- */

static int64_t now_ms(void) {
    return monotonic_ns() / 1000000;
}

/* Waits at most `timeout` ms; accepts what arrives and returns a signal, or 0. */
static int wait_for_event(server *server, int64_t timeout) {
    struct signalfd_siginfo signal;
    struct pollfd events[] = {{.fd = server->signal_fd, .events = POLLIN},
                              {.fd = server->listen_fd, .events = POLLIN}};
    poll(events, server->listen_fd >= 0 ? 2 : 1, (int)timeout);
    if (events[1].revents) {
        accept_one(server);
    }
    if (events[0].revents &&
        read(server->signal_fd, &signal, sizeof signal) == (ssize_t)sizeof signal) {
        return (int)signal.ssi_signo;
    }
    return 0;
}

static void serve_until_signal(server *server) {
    for (;;) {
        switch (wait_for_event(server, -1)) {
        case SIGHUP:
            event_log("INFO", "SIGHUP: reloading");
            model_store_reload(server->store, NULL, NULL);
            break;
        case SIGTERM:
        case SIGINT:
            return;
        default:
            break;
        }
    }
}

static void wake_all(server *server) {
    for (int32_t i = 0; i < server->worker_count; i++) {
        worker_wake(&server->workers[i]);
    }
}

int64_t server_open_connections(server *server) {
    pthread_mutex_lock(&server->mutex);
    const int64_t open = server->open;
    pthread_mutex_unlock(&server->mutex);
    return open;
}

void server_sum_metrics(server *server, metrics *sum) {
    memset(sum, 0, sizeof *sum);
    for (int32_t i = 0; i < server->worker_count; i++) {
        metrics_sum(sum, &server->workers[i].metrics);
    }
}

/* True when everything in flight was answered. */
static bool drain(server *server) {
    const int64_t began = now_ms();
    bool hurry = false;
    atomic_store(&server->draining, true);
    event_log("INFO", "draining");
    for (int64_t left = SERVER_NOTICE_MS; left > 0 && !hurry;
         left = began + SERVER_NOTICE_MS - now_ms()) {
        int signal = wait_for_event(server, left);
        hurry = signal == SIGTERM || signal == SIGINT;
    }
    close(server->listen_fd);
    server->listen_fd = -1;
    atomic_store(&server->closing, true);
    wake_all(server);
    while (!hurry && server_open_connections(server) > 0 && now_ms() - began < SERVER_DRAIN_MS) {
        int signal = wait_for_event(server, 20);
        hurry = signal == SIGTERM || signal == SIGINT;
    }
    const int64_t left = server_open_connections(server);
    if (left > 0) {
        atomic_store(&server->cut_off, true);
        wake_all(server);
        event_log("WARNING", "%lld connections were cut off", (long long)left);
    }
    return left == 0;
}

static bool watch_signals(server *server, error *error) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    /* Before any thread starts, so that all inherit it and only the descriptor reports them. */
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    server->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return server->signal_fd >= 0 || error_set(error, "signalfd: %s", strerror(errno));
}

static bool open_log(server *server, error *error) {
    const char *path = server->options.access_log;
    if (strcmp(path, "off") == 0) {
        return true;
    }
    const int fd = strcmp(path, "-") == 0
                       ? dup(STDOUT_FILENO)
                       : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0) {
        return error_set(error, "--access-log %s: %s", path, strerror(errno));
    }
    server->log = log_writer_create(fd, error);
    return server->log != NULL;
}

static bool start(server *server, error *error) {
    char url[128];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    server->start_time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    server->peers = calloc((size_t)server->options.connections, sizeof *server->peers);
    server->workers = calloc((size_t)server->worker_count, sizeof *server->workers);
    if (!server->peers || !server->workers) {
        return error_set(error, "no memory for %lld connections",
                         (long long)server->options.connections);
    }
    if (!watch_signals(server, error) || !open_log(server, error)) {
        return false;
    }
    server->listen_fd = listen_on(&server->options, url, error);
    if (server->listen_fd < 0 ||
        !model_store_open(&server->store, &server->options.sources, server->worker_count, error)) {
        return false;
    }
    for (int32_t i = 0; i < server->worker_count; i++) {
        if (!worker_start(&server->workers[i], server, i, error)) {
            return false;
        }
    }
    clock_gettime(CLOCK_REALTIME, &now);
    event_log("INFO", "listening on %s, ready after %.0f ms", url,
              1e3 * ((double)now.tv_sec + (double)now.tv_nsec * 1e-9 - server->start_time));
    return true;
}

static void finish(server *server) {
    atomic_store(&server->closing, true);
    atomic_store(&server->cut_off, true);
    model_store_stop(server->store); /* first: it answers those who wait for a reload */
    for (int32_t i = 0; server->workers && i < server->worker_count; i++) {
        if (server->workers[i].started) {
            worker_wake(&server->workers[i]);
        }
        worker_join(&server->workers[i]);
    }
    model_store_close(server->store);
    free(server->workers);
    free(server->peers);
    if (server->log) {
        log_writer_close(server->log);
    }
    const int descriptors[] = {server->listen_fd, server->signal_fd};
    for (int i = 0; i < 2; i++) {
        if (descriptors[i] >= 0) {
            close(descriptors[i]);
        }
    }
    pthread_mutex_destroy(&server->mutex);
}

bool server_run(const server_options *options, error *error) {
    server server = {.options = *options, .listen_fd = -1, .signal_fd = -1};
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t workers = options->workers > 0 ? options->workers : cores > 0 ? cores : 1;
    server.worker_count = (int32_t)(workers < SERVER_WORKERS_MOST ? workers : SERVER_WORKERS_MOST);
    pthread_mutex_init(&server.mutex, NULL);
    bool ok = start(&server, error);
    if (ok) {
        serve_until_signal(&server);
        ok = drain(&server) || error_set(error, "requests in flight were cut off");
        event_log("INFO", "stopped");
    }
    finish(&server);
    return ok;
}
