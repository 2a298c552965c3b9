/* What happens to the service, as JSON lines on standard error: {"time","severity","message"}, the
 * names that Cloud Logging parses. */
#ifndef SERVE_EVENT_LOG_H
#define SERVE_EVENT_LOG_H

/* severity: "INFO", "NOTICE", "WARNING", "ERROR". One write, from any thread. */
void event_log(const char *severity, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
