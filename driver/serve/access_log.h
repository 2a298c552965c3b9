/* One JSON line a request, in the form of Cloud Logging's httpRequest. A worker gathers its lines
 * and hands them to the writer together. */
#ifndef SERVE_ACCESS_LOG_H
#define SERVE_ACCESS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/log_writer.h"

enum { ACCESS_LOG_BUFFER = 32768, ACCESS_LOG_DELAY_MS = 100 };

typedef struct access_log {
    log_writer *writer; /* NULL: off */
    size_t used;
    int64_t flushed_ns; /* when lines were last handed over */
    int64_t second;     /* that `moment` shows */
    char moment[24];
    char buffer[ACCESS_LOG_BUFFER];
} access_log;

typedef struct access_entry {
    const char *method, *uri, *peer, *user_agent, *trace; /* user_agent, trace: NULL if absent */
    int status;
    size_t request_size, response_size;
    int64_t duration_ns;
} access_entry;

void access_log_add(access_log *log, const access_entry *entry, int64_t now_ns);

/* Hands over what is waiting when it is much or old enough, or in any case with `force`. */
void access_log_flush(access_log *log, int64_t now_ns, bool force);

#endif
