#define _POSIX_C_SOURCE 200809L
#include "serve/log_writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t count_lines(const char *text, size_t size) {
    uint64_t lines = 0;
    for (const char *end = text + size; (text = memchr(text, '\n', (size_t)(end - text))); text++) {
        lines++;
    }
    return lines;
}

/* Lines that were not written. */
static uint64_t write_all(int fd, const char *text, size_t size) {
    size_t done = 0;
    while (done < size) {
        const ssize_t written = write(fd, text + done, size - done);
        if (written < 0 && errno != EINTR) {
            break; /* a log that can't be written must not stop the service */
        }
        done += written > 0 ? (size_t)written : 0;
    }
    return count_lines(text + done, size - done);
}

static uint64_t say_dropped(int fd, uint64_t lines) {
    char moment[24], text[192];
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(moment, sizeof moment, "%Y-%m-%dT%H:%M:%SZ", &utc);
    const int size =
        snprintf(text, sizeof text,
                 "{\"time\":\"%s\",\"severity\":\"WARNING\",\"message\":\"%llu lines of "
                 "the access log were dropped: its reader was too slow\"}\n",
                 moment, (unsigned long long)lines);
    return write_all(fd, text, (size_t)size);
}

static void *run(void *argument) {
    log_writer *writer = argument;
    uint64_t said = 0; /* of the dropped lines */
    pthread_mutex_lock(&writer->mutex);
    for (;;) {
        while (writer->used == 0 && !writer->closing) {
            pthread_cond_wait(&writer->changed, &writer->mutex);
        }
        if (writer->used == 0) {
            break;
        }
        char *text = writer->waiting;
        const size_t size = writer->used;
        const uint64_t dropped = writer->dropped;
        writer->waiting = writer->writing;
        writer->writing = text;
        writer->used = 0;
        writer->busy = true;
        pthread_mutex_unlock(&writer->mutex);
        uint64_t lost = write_all(writer->fd, text, size);
        if (lost == 0 && dropped > said && say_dropped(writer->fd, dropped - said) == 0) {
            said = dropped;
        }
        pthread_mutex_lock(&writer->mutex);
        writer->dropped += lost;
        writer->busy = false;
        pthread_cond_broadcast(&writer->changed);
    }
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

static void destroy(log_writer *writer) {
    pthread_cond_destroy(&writer->changed);
    pthread_mutex_destroy(&writer->mutex);
    close(writer->fd);
    free(writer->waiting);
    free(writer->writing);
    free(writer);
}

log_writer *log_writer_create(int fd, error *error) {
    log_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        close(fd);
        error_set(error, "no memory for the access log");
        return NULL;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&writer->mutex, NULL);
    pthread_cond_init(&writer->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    writer->fd = fd;
    writer->waiting = malloc(LOG_WAITING_MOST);
    writer->writing = malloc(LOG_WAITING_MOST);
    if (!writer->waiting || !writer->writing ||
        pthread_create(&writer->thread, NULL, run, writer) != 0) {
        destroy(writer);
        error_set(error, "no memory or no thread for the access log");
        return NULL;
    }
    return writer;
}

void log_writer_give(log_writer *writer, const char *lines, size_t size) {
    pthread_mutex_lock(&writer->mutex);
    if (size <= LOG_WAITING_MOST - writer->used) {
        memcpy(writer->waiting + writer->used, lines, size);
        writer->used += size;
        pthread_cond_broadcast(&writer->changed);
    } else {
        writer->dropped += count_lines(lines, size);
    }
    pthread_mutex_unlock(&writer->mutex);
}

uint64_t log_writer_dropped(log_writer *writer) {
    pthread_mutex_lock(&writer->mutex);
    const uint64_t dropped = writer->dropped;
    pthread_mutex_unlock(&writer->mutex);
    return dropped;
}

void log_writer_close(log_writer *writer) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += LOG_CLOSE_MS * 1000000L;
    end.tv_sec += end.tv_nsec / 1000000000L;
    end.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&writer->mutex);
    writer->closing = true;
    pthread_cond_broadcast(&writer->changed);
    int waited = 0;
    while ((writer->used > 0 || writer->busy) && waited == 0) {
        waited = pthread_cond_timedwait(&writer->changed, &writer->mutex, &end);
    }
    const bool stuck = writer->busy;
    pthread_mutex_unlock(&writer->mutex);
    if (stuck) {
        pthread_cancel(writer->thread); /* it is in write(), and holds nothing */
    }
    pthread_join(writer->thread, NULL);
    destroy(writer);
}
