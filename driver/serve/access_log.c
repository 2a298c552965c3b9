#define _POSIX_C_SOURCE 200809L
#include "serve/access_log.h"

#include <stdio.h>
#include <time.h>

enum { LINE_MOST = 2048, VALUE_MOST = 256 };

static const char *moment(access_log *log) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != log->second) {
        struct tm utc;
        gmtime_r(&now.tv_sec, &utc);
        strftime(log->moment, sizeof log->moment, "%Y-%m-%dT%H:%M:%S", &utc);
        log->second = now.tv_sec;
    }
    return log->moment;
}

/* At most VALUE_MOST bytes of a client's text as the inside of a JSON string; bytes outside ASCII
 * as \u00xx. */
static const char *escape(char out[6 * VALUE_MOST + 1], const char *text) {
    char *to = out;
    for (int i = 0; i < VALUE_MOST && text[i]; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == '"' || c == '\\' || c >= 0x7f) {
            to += snprintf(to, 7, "\\u%04x", c);
        } else {
            *to++ = (char)c;
        }
    }
    *to = '\0';
    return out;
}

static void add_text(access_log *log, const char *key, const char *value) {
    char escaped[6 * VALUE_MOST + 1];
    log->used += (size_t)snprintf(log->buffer + log->used, sizeof log->buffer - log->used,
                                  ",\"%s\":\"%s\"", key, escape(escaped, value));
}

void access_log_add(access_log *log, const access_entry *entry, int64_t now_ns) {
    if (!log->writer) {
        return;
    }
    if (sizeof log->buffer - log->used < LINE_MOST + 3 * 6 * VALUE_MOST) {
        access_log_flush(log, now_ns, true);
    }
    const char *severity = entry->status >= 500   ? "ERROR"
                           : entry->status >= 400 ? "WARNING"
                                                  : "INFO";
    const char *second = moment(log);
    char method[6 * VALUE_MOST + 1];
    log->used += (size_t)snprintf(
        log->buffer + log->used, sizeof log->buffer - log->used,
        "{\"time\":\"%sZ\",\"severity\":\"%s\",\"httpRequest\":{\"requestMethod\":\"%.96s\","
        "\"status\":%d,\"requestSize\":\"%zu\",\"responseSize\":\"%zu\",\"latency\":\"%.6fs\","
        "\"remoteIp\":\"%.64s\"",
        second, severity, escape(method, entry->method), entry->status, entry->request_size,
        entry->response_size, (double)entry->duration_ns * 1e-9, entry->peer);
    add_text(log, "requestUrl", entry->uri);
    if (entry->user_agent) {
        add_text(log, "userAgent", entry->user_agent);
    }
    log->buffer[log->used++] = '}';
    if (entry->trace) {
        add_text(log, "trace", entry->trace);
    }
    log->buffer[log->used++] = '}';
    log->buffer[log->used++] = '\n';
}

void access_log_flush(access_log *log, int64_t now_ns, bool force) {
    const bool old = now_ns - log->flushed_ns > ACCESS_LOG_DELAY_MS * INT64_C(1000000);
    if (log->used == 0 || (!force && !old && log->used < sizeof log->buffer / 2)) {
        return;
    }
    log_writer_give(log->writer, log->buffer, log->used);
    log->used = 0;
    log->flushed_ns = now_ns;
}
