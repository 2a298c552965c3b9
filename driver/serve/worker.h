/* One event loop: a thread with its own libmicrohttpd daemon, batcher, counters and log buffer.
 *
 * A turn reads what has arrived on all its connections, runs the model once for all requests that
 * need it, and answers them. Nothing is shared between workers but the model store, so a turn
 * takes no lock. Connections come from the server, which accepts them and deals them out. */
#ifndef SERVE_WORKER_H
#define SERVE_WORKER_H

#include <pthread.h>
#include <sys/socket.h>

#include "serve/access_log.h"
#include "serve/batcher.h"
#include "serve/request.h"

struct server;

enum { PEER_SIZE = 64, WORKER_INBOX = 64 };

/* One open connection; made by the server, owned by the worker. */
typedef struct connection {
    struct connection *next, *previous;
    int fd;
    int32_t worker;       /* index of its owner */
    char peer[PEER_SIZE]; /* the client's address as text */
    struct sockaddr_storage address;
    socklen_t address_size;
    request *request; /* in progress, or NULL */
    int64_t since_ns; /* end of the last request, or the connection's start */
    int64_t heard_ns; /* when bytes last came */
    framing framing;
    uint64_t answered; /* messages of framing's */
    bool half_closed;  /* the client sends no more but waits for answers */
    bool refused;      /* the answer to what framing refuses was sent */
} connection;

typedef struct worker {
    struct server *server;
    int32_t index;
    pthread_t thread;
    bool started;
    struct MHD_Daemon *daemon;
    int epoll_fd; /* libmicrohttpd's */
    int wake_fd;  /* an eventfd: something is in the inbox */
    snapshot *snapshot;
    uint64_t generation; /* of snapshot */
    batcher batcher;
    metrics metrics;
    access_log log;
    connection *connections; /* all open ones */
    connection **by_fd;      /* [fds], owned; NULL where none is open */
    int fds;
    int64_t checked_ns; /* when deadlines were last looked at */
    int64_t share;      /* connections dealt to it and open; the server's, under its mutex */

    pthread_mutex_t mutex; /* guards the inbox */
    connection *arrived;   /* a list by `next`, the latest first */
    request *reloaded[WORKER_INBOX];
    int32_t reloaded_count;
} worker;

bool worker_start(worker *worker, struct server *server, int32_t index, error *error);
/* Waits for the thread's end, which server_is_closing brings about, and frees what it owned. */
void worker_join(worker *worker);

/* From any thread. */
void worker_give(worker *worker, connection *connection);
void worker_give_reloaded(request *request);
void worker_wake(worker *worker);

/* From the worker's own thread. */
void worker_suspend(request *request);
void worker_resume(request *request);

#endif
