/* serve: the checkpoint's predictions over HTTP. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/options.h"
#include "command.h"

#ifdef RP_HAVE_SERVE
#include "serve/server.h"

/* The file's text without the space around it; owned by the caller. */
static char *read_token(const char *path, error *error) {
    char *token = NULL;
    size_t size = 0;
    if (!file_read(path, &token, &size, error)) {
        return NULL;
    }
    size_t first = strspn(token, " \t\r\n");
    size_t length = strcspn(token + first, " \t\r\n");
    memmove(token, token + first, length);
    token[length] = '\0';
    if (length < 16 || first + length + strspn(token + first + length, " \t\r\n") > size) {
        error_set(error, "%s: a token has at least 16 characters and no spaces", path);
        free(token);
        return NULL;
    }
    return token;
}

static bool run(server_options *options, const char *token_file, const char *admin_token_file,
                error *error) {
    char *token = token_file ? read_token(token_file, error) : NULL;
    char *admin = !token_file || token
                      ? (admin_token_file ? read_token(admin_token_file, error) : NULL)
                      : NULL;
    options->token = token;
    options->admin_token = admin;
    const bool ok =
        (!token_file || token) && (!admin_token_file || admin) && server_run(options, error);
    free(token);
    free(admin);
    return ok;
}

int cmd_serve(int argc, char **argv) {
    const char *token_file = NULL, *admin_token_file = NULL;
    server_options values = {.address = "127.0.0.1",
                             .port = 8080,
                             .connections = 1024,
                             .connections_per_ip = 256,
                             .body_limit = 1 << 20,
                             .header_limit = 8192,
                             .idle_seconds = 60,
                             .request_seconds = 90,
                             .access_log = "-"};
    option options[] = {
        {"checkpoint", OPTION_STRING, &values.sources.checkpoint, "FILE", "the model",
         .required = true},
        {"prices", OPTION_STRING, &values.sources.prices, "DIR", "price files", .required = true},
        {"address", OPTION_STRING, &values.address, "HOST",
         "to listen on; 0.0.0.0 for all interfaces"},
        {"port", OPTION_INT64, &values.port, "N", "0: any free one", .least = 0, .most = 65535},
        {"threads", OPTION_INT64, &values.workers, "N", "event loops; 0: one a core", .least = 0,
         .most = SERVER_WORKERS_MOST},
        {"benchmark", OPTION_STRING, &values.sources.benchmark, "FILE",
         "speed table to show (benchmark --out)"},
        {"report", OPTION_STRING, &values.sources.report, "FILE",
         "verdict to show (evaluate --out)"},
        {"token-file", OPTION_STRING, &token_file, "FILE",
         "bearer token that all routes but health ask for"},
        {"admin-token-file", OPTION_STRING, &admin_token_file, "FILE",
         "turns on POST /admin/reload, with this bearer token"},
        {"access-log", OPTION_STRING, &values.access_log, "FILE",
         "JSON lines; - is standard output, off is none"},
        {"max-connections", OPTION_INT64, &values.connections, "N", "open at once", .least = 1,
         .most = 65536},
        {"max-connections-per-ip", OPTION_INT64, &values.connections_per_ip, "N",
         "of one address; behind a proxy all come from its own", .least = 1, .most = 65536},
        {"max-body", OPTION_INT64, &values.body_limit, "BYTES", "of a request", .least = 1024,
         .most = 1 << 28},
        {"max-header", OPTION_INT64, &values.header_limit, "BYTES", "of a request", .least = 4096,
         .most = 1 << 20},
        {"idle-timeout", OPTION_INT64, &values.idle_seconds, "SECONDS",
         "a connection without a byte is closed", .least = 1, .most = 3600},
        {"request-timeout", OPTION_INT64, &values.request_seconds, "SECONDS",
         "from the end of one request to the end of the next", .least = 1, .most = 7200},
    };
    int status;
    if (!OPTIONS_PARSE("serve",
                       "Serves predictions over HTTP. SIGHUP reloads, SIGTERM drains and ends.",
                       options, argc, argv, &status)) {
        return status;
    }
    error error = {""};
    if (!run(&values, token_file, admin_token_file, &error)) {
        fprintf(stderr, "return-predictor serve: %s\n", error.message);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

#else

int cmd_serve(int argc, char **argv) {
    (void)argc;
    (void)argv;
    fprintf(stderr, "return-predictor serve: this build has no HTTP service; install "
                    "libmicrohttpd-dev and libjansson-dev and build again\n");
    return EXIT_FAILED;
}

#endif
