/* Whole HTTP connections: the input's bytes arrive on a socket, libmicrohttpd and the worker
 * answer.
 *
 * The first byte says how: bit 0, the service has a token; bits 1 and 2, in how many pieces the
 * rest arrives (so that a request is cut at places that matter). Every answer must begin as HTTP
 * does, every line of the access log must be JSON, and nothing may stay open or allocated. */
#include "serve/worker.c" /* its turns, without its thread */

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>

#include "command.h"
#include "fuzz.h"
#include "json_line.h"

enum { TURNS_MOST = 64, LARGEST = 1 << 14 };

static server service;
static worker the_worker;
static log_writer the_log; /* without its thread: what is given to it is read here */
static char answers[1 << 20];

/* A market of two tickers and a model of one unit, from the program's own commands. */
static void make_model(const char *folder, char *prices, char *checkpoint) {
    snprintf(prices, 256, "%s/prices", folder);
    snprintf(checkpoint, 256, "%s/model", folder);
    char *synthesize[] = {"synthesize", "--out", prices, "--tickers", "2", "--days", "60", NULL};
    char *train[] = {"train",    "--prices",        prices,      "--checkpoint",
                     checkpoint, "--hidden",        "16",        "--layers",
                     "1",        "--epochs",        "1",         "--batch",
                     "16",       "--configuration", "cpu-fused", "--time-steps",
                     "1",        "--quiet",         NULL};
    CLAIM(cmd_synthesize(7, synthesize) == EXIT_DONE);
    CLAIM(cmd_train(18, train) == EXIT_DONE);
}

static void remove_folder(const char *folder, const char *prices) {
    char path[600];
    DIR *listing = opendir(prices);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        snprintf(path, sizeof path, "%s/%s", prices, entry->d_name);
        unlink(path);
    }
    closedir(listing);
    snprintf(path, sizeof path, "%s/model", folder);
    unlink(path);
    rmdir(prices);
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    static char prices[256], checkpoint[256];
    char folder[] = "/tmp/http_fuzz.XXXXXX";
    error error = {""};
    CLAIM(mkdtemp(folder));
    make_model(folder, prices, checkpoint);
    service.options = (server_options){.connections = 8,
                                       .connections_per_ip = 8,
                                       .body_limit = 4096,
                                       .header_limit = 8192,
                                       .idle_seconds = 60,
                                       .request_seconds = 60};
    service.options.sources = (snapshot_sources){.checkpoint = checkpoint, .prices = prices};
    service.workers = &the_worker;
    service.worker_count = 1;
    service.peers = calloc(8, sizeof *service.peers);
    the_log.waiting = malloc(LOG_WAITING_MOST);
    CLAIM(service.peers && the_log.waiting);
    pthread_mutex_init(&the_log.mutex, NULL);
    pthread_cond_init(&the_log.changed, NULL);
    service.log = the_worker.log.writer = &the_log;
    pthread_mutex_init(&service.mutex, NULL);
    CLAIM(model_store_open(&service.store, &service.options.sources, 1, &error));
    remove_folder(folder, prices);

    the_worker.server = &service;
    pthread_mutex_init(&the_worker.mutex, NULL);
    the_worker.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    refresh_snapshot(&the_worker);
    CLAIM(batcher_create(&the_worker.batcher, 0, &the_worker.metrics, &error));
    the_worker.daemon = start_daemon(&the_worker, &service.options);
    CLAIM(the_worker.daemon);
    the_worker.epoll_fd =
        MHD_get_daemon_info(the_worker.daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    while (atomic_load(&the_worker.snapshot->predicted) < the_worker.snapshot->dataset.rows) {
        usleep(1000); /* the table is filled by the store's thread, which sleeps from then on */
    }
    return 0;
}

/* Turns of the worker until nothing is left to do; reads what it answers. */
static size_t take_turns(int client, size_t used) {
    bool more = true;
    for (int turn = 0; turn < TURNS_MOST && more; turn++) {
        struct pollfd event = {.fd = the_worker.epoll_fd, .events = POLLIN};
        MHD_UNSIGNED_LONG_LONG wait;
        MHD_run_wait(the_worker.daemon, 0);
        more = the_worker.batcher.first != NULL;
        batcher_run(&the_worker.batcher);
        const ssize_t got = client < 0 ? 0 : read(client, answers + used, sizeof answers - used);
        used += got > 0 ? (size_t)got : 0;
        more |= got > 0 || poll(&event, 1, 0) > 0 ||
                (MHD_get_timeout(the_worker.daemon, &wait) == MHD_YES && wait == 0);
    }
    return used;
}

static int connect_client(void) {
    int pair[2];
    connection *connection = calloc(1, sizeof *connection);
    CLAIM(connection);
    CLAIM(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    memcpy(&connection->address, &address, sizeof address);
    connection->address_size = sizeof address;
    connection->fd = pair[1];
    memcpy(connection->peer, "127.0.0.1", 10);
    memcpy(service.peers[0].peer, "127.0.0.1", 10);
    service.peers[0].count = 1;
    service.open = the_worker.share = 1;
    take_connection(&the_worker, connection);
    return pair[0];
}

/* False: the service reads no more. */
static bool send_all(int client, const char *data, size_t size) {
    const ssize_t sent = send(client, data, size, MSG_NOSIGNAL);
    CLAIM(sent == (ssize_t)size || (sent < 0 && errno == EPIPE));
    return sent >= 0;
}

static void check_log(void) {
    access_log_flush(&the_worker.log, monotonic_ns(), true);
    const char *line = the_log.waiting, *end = line + the_log.used;
    while (line < end) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        CLAIM(line_end && json_line_is_object(line, (size_t)(line_end - line)));
        line = line_end + 1;
    }
    the_log.used = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > LARGEST) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    const size_t left = size - 1, pieces = (size_t)(data[0] >> 1 & 3) + 1;
    service.options.token = data[0] & 1 ? "secret" : NULL;
    const int client = connect_client();
    size_t answered = 0;
    for (size_t piece = 0; piece < pieces; piece++) {
        const size_t begin = left * piece / pieces, end = left * (piece + 1) / pieces;
        if (end > begin && the_worker.connections && send_all(client, text + begin, end - begin)) {
            answered = take_turns(client, answered);
        }
    }
    close(client);
    take_turns(-1, 0);
    CLAIM(answered == 0 || (answered >= 12 && memcmp(answers, "HTTP/1.", 7) == 0));
    CLAIM(!the_worker.connections && service.open == 0);
    check_log();
    return 0;
}
