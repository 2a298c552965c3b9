/* The thread that writes the access log, so that a reader that is stuck stops nobody else: workers
 * hand whole lines over and go on. What doesn't fit while the reader lags is dropped and counted,
 * and the log says how much once it can be written again. */
#ifndef SERVE_LOG_WRITER_H
#define SERVE_LOG_WRITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { LOG_WAITING_MOST = 1 << 20, LOG_CLOSE_MS = 500 };

typedef struct log_writer {
    int fd; /* owned */
    pthread_t thread;
    pthread_mutex_t mutex;  /* guards what follows */
    pthread_cond_t changed; /* something waits, was written, or the end has come */
    char *waiting;          /* [LOG_WAITING_MOST], owned */
    char *writing;          /* [LOG_WAITING_MOST], owned; the thread's alone while `busy` */
    size_t used;            /* bytes of waiting */
    uint64_t dropped;       /* lines, in all */
    bool busy, closing;
} log_writer;

/* NULL: out of memory or threads. Takes the descriptor over. */
log_writer *log_writer_create(int fd, error *error);

/* Takes a copy of these lines; never waits for the reader. */
void log_writer_give(log_writer *writer, const char *lines, size_t size);

uint64_t log_writer_dropped(log_writer *writer);

/* Writes what is left, for LOG_CLOSE_MS at most. */
void log_writer_close(log_writer *writer);

#endif
