/* The floor under any service built on libmicrohttpd: a pool of epoll threads that read a request
 * and answer 95 constant bytes.  cc -O2 serving_bare.c -lmicrohttpd && ./a.out PORT THREADS */
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char answer[] = "{\"predicted_return\": 0.00123456, \"model\": \"FinancialLSTM\", "
                       "\"sequence_length\": 20, \"x\": 1234}";

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **user) {
    static int seen;
    (void)context, (void)url, (void)method, (void)version, (void)data;
    if (!*user || *size > 0) {
        *user = &seen;
        *size = 0;
        return MHD_YES;
    }
    *user = NULL;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(sizeof answer - 1, answer, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(response, "Content-Type", "application/json");
    enum MHD_Result queued = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return queued;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fputs("usage: serving_bare PORT THREADS\n", stderr);
        return 2;
    }
    const unsigned long port = strtoul(arguments[1], NULL, 10);
    const unsigned long threads = strtoul(arguments[2], NULL, 10);
    if (!MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_TURBO, (uint16_t)port, NULL, NULL,
                          on_request, NULL, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)threads,
                          MHD_OPTION_END)) {
        fputs("serving_bare: can't listen\n", stderr);
        return 1;
    }
    pause();
    return 0;
}
