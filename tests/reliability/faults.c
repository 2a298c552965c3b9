/* A library for LD_PRELOAD that makes chosen system calls fail, so that tests see what a program
 * does on a full, broken or read-only disk, and what a kill at a given moment leaves behind.
 *
 *     RP_FAULT=CALL:N:EFFECT   CALL: open (for writing), write, fsync, linkat, close or rename;
 *                              from its Nth on. EFFECT: an errno's name (EIO, ENOSPC, EROFS,
 *                              EACCES; that one call only: EINTR, ENOENT, EOPNOTSUPP), short
 *                              (half of what was asked is written), kill (SIGKILL before the call,
 *                              to the program, whichever of its processes makes the call)
 *     RP_FAULT_PATH=TEXT       counts only files whose path contains it
 *     RP_FAULT_LOG=FILE        appends a line for each call that counts
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_SIZE = 32, PATH_SIZE = 4096 };

static const struct {
    const char *name;
    int number;
    bool once;
} errors[] = {{"EIO", EIO, false},       {"ENOSPC", ENOSPC, false},       {"EROFS", EROFS, false},
              {"EACCES", EACCES, false}, {"EINTR", EINTR, true},          {"ENOENT", ENOENT, true},
              {"short", 0, false},       {"EOPNOTSUPP", EOPNOTSUPP, true}};

static pid_t program; /* not its processes for a call or two */

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_read)(int, void *, size_t);
static int (*real_open)(const char *, int, ...);
static int (*real_fsync)(int);
static int (*real_close)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_linkat)(int, const char *, int, const char *, int);

__attribute__((constructor)) static void remember_program(void) {
    program = getpid();
}

/* ISO C has no conversion from the pointer that dlsym returns. */
static void find(void *function, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(function, &found, sizeof found);
}

static void find_all(void) {
    if (!real_open) {
        find(&real_read, "read");
        find(&real_write, "write");
        find(&real_fsync, "fsync");
        find(&real_close, "close");
        find(&real_rename, "rename");
        find(&real_linkat, "linkat");
        find(&real_open, "open");
    }
}

static void note(const char *call, const char *path) {
    const char *log = getenv("RP_FAULT_LOG");
    const int fd = log ? real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    if (fd >= 0) {
        char line[PATH_SIZE + NAME_SIZE];
        const int length = snprintf(line, sizeof line, "%s %s\n", call, path);
        const ssize_t written = real_write(fd, line, (size_t)length);
        (void)written;
        real_close(fd);
    }
}

/* What this call meets: 0 nothing, -1 half of the bytes, otherwise an errno. */
static int fault(const char *call, const char *path) {
    static int calls;
    char name[NAME_SIZE], effect[NAME_SIZE];
    int first;
    const char *wanted = getenv("RP_FAULT"), *part = getenv("RP_FAULT_PATH");
    if (part && !strstr(path, part)) {
        return 0;
    }
    note(call, path);
    if (!wanted || sscanf(wanted, "%31[A-Za-z]:%d:%31s", name, &first, effect) != 3 ||
        strcmp(name, call) != 0 || ++calls < first) {
        return 0;
    }
    if (strcmp(effect, "kill") == 0) {
        kill(program, SIGKILL);
        return 0;
    }
    if (strspn(effect, "0123456789") == strlen(effect)) {
        return (int)strtol(effect, NULL, 10);
    }
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        if (strcmp(effect, errors[i].name) == 0) {
            const int number = errors[i].number;
            return errors[i].once && calls > first ? 0 : number ? number : -1;
        }
    }
    fprintf(stderr, "RP_FAULT: '%s' is no effect\n", effect);
    abort();
}

static int fault_of_file(const char *call, int fd) {
    char link[64], path[PATH_SIZE];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/') {
        return 0; /* a pipe or a socket */
    }
    path[length] = '\0';
    return fault(call, path);
}

static bool refuse(int number) {
    errno = number;
    return number > 0;
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    find_all();
    if ((flags & O_ACCMODE) != O_RDONLY && refuse(fault("open", path))) {
        return -1;
    }
    return real_open(path, flags, mode);
}

ssize_t read(int fd, void *data, size_t size) {
    find_all();
    const int number = fault_of_file("read", fd);
    if (refuse(number)) {
        return -1;
    }
    return real_read(fd, data, number < 0 && size > 1 ? size / 2 : size);
}

/* What fortified programs call instead, where the compiler knows the buffer's size. */
ssize_t __read_chk(int fd, void *data, size_t size, size_t room);
ssize_t __read_chk(int fd, void *data, size_t size, size_t room) {
    if (size > room) {
        abort();
    }
    return read(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size) {
    find_all();
    const int number = fault_of_file("write", fd);
    if (refuse(number)) {
        return -1;
    }
    return real_write(fd, data, number < 0 && size > 1 ? size / 2 : size);
}

int fsync(int fd) {
    find_all();
    return refuse(fault_of_file("fsync", fd)) ? -1 : real_fsync(fd);
}

int close(int fd) {
    find_all();
    const int number = fault_of_file("close", fd);
    const int result = real_close(fd);
    return refuse(number) ? -1 : result;
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    find_all();
    return refuse(fault("linkat", to)) ? -1 : real_linkat(from_folder, from, to_folder, to, flags);
}

int rename(const char *from, const char *to) {
    find_all();
    return refuse(fault("rename", to)) ? -1 : real_rename(from, to);
}

/* ---- CUDA's runtime, which is loaded later than this library; errors are numbers above 0 ---- */

static void find_cuda(void *function, const char *name) {
    void *runtime = dlopen("libcudart.so.13", RTLD_LAZY | RTLD_NOLOAD);
    void *found = runtime ? dlsym(runtime, name) : NULL;
    memcpy(function, &found, sizeof found);
}

int cudaGetDeviceCount(int *count) {
    int (*real)(int *);
    find_all();
    const int number = fault("cudaGetDeviceCount", "");
    find_cuda(&real, "cudaGetDeviceCount");
    return number || !real ? number : real(count);
}

int cudaStreamSynchronize(void *stream) {
    int (*real)(void *);
    find_all();
    const int number = fault("cudaStreamSynchronize", "");
    find_cuda(&real, "cudaStreamSynchronize");
    return number || !real ? number : real(stream);
}
