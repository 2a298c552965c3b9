#define _POSIX_C_SOURCE 200809L
#include "serve/event_log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"

void event_log(const char *severity, const char *format, ...) {
    char message[ERROR_MESSAGE_SIZE + 256], moment[32];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(moment, sizeof moment, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json json = {0};
    json_object(&json, NULL);
    json_string(&json, "time", moment);
    json_string(&json, "severity", severity);
    json_string(&json, "message", message);
    json_end(&json);
    text_append(&json.text, "\n", 1);
    if (text_ok(&json.text)) {
        /* An event that can't be written has nowhere to be reported, and who writes it has better
         * things to do than to wait for a reader that is stuck. */
        struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
        ssize_t written =
            poll(&ready, 1, 0) == 1 ? write(STDERR_FILENO, json.text.data, json.text.length) : 0;
        (void)written;
    }
    json_free(&json);
}
