#define _POSIX_C_SOURCE 200809L
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool read_all(int fd, char *data, size_t *size, size_t capacity) {
    *size = 0;
    while (*size < capacity) {
        ssize_t got = read(fd, data + *size, capacity - *size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            return true;
        *size += (size_t)got;
    }
    return true;
}

bool file_read(const char *path, char **data, size_t *size, error *error) {
    *data = NULL;
    *size = 0;
    bool ok = false;
    char *content = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is refused, not waited for */
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        error_set(error, "%s: can't be opened: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(status.st_mode)) {
        error_set(error, "%s: not a regular file", path);
        goto done;
    }
    /* One byte more than the size, to notice a file that grows meanwhile. */
    size_t capacity = (size_t)status.st_size + 1;
    content = malloc(capacity + 1);
    if (!content) {
        error_set(error, "%s: no memory for its %zu bytes", path, capacity - 1);
        goto done;
    }
    size_t got = 0;
    if (!read_all(fd, content, &got, capacity)) {
        error_set(error, "%s: can't be read: %s", path, strerror(errno));
        goto done;
    }
    if (got != capacity - 1) {
        error_set(error, "%s: its size changed while it was read; try again", path);
        goto done;
    }
    content[got] = '\0';
    *data = content;
    *size = got;
    content = NULL;
    ok = true;
done:
    free(content);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool write_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        data += written;
        size -= (size_t)written;
    }
    return true;
}

/* A rename is on disk once its folder is. */
static bool sync_folder(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, length);
    folder[length] = '\0';
    int fd = open(!slash ? "." : length ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = fsync(fd) == 0 || errno == EINVAL; /* EINVAL: this file system has no such thing */
    close(fd);
    return ok;
}

bool file_write(const char *path, const void *data, size_t size, error *error) {
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof temporary)
        return error_set(error, "%s: the name is too long", path);
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return error_set(error, "%s: exists and is not a regular file; not replaced", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_set(error, "%s: can't be created: %s", temporary, strerror(errno));
    bool ok = write_all(fd, data, size) && fsync(fd) == 0;
    int reason = errno;
    if (close(fd) != 0 && ok) {
        ok = false;
        reason = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = false;
        reason = errno;
    }
    if (!ok) {
        unlink(temporary);
        return error_set(error, "%s: can't be written: %s", path, strerror(reason));
    }
    if (!sync_folder(path))
        return error_set(error, "%s: its folder can't be synced: %s", path, strerror(errno));
    return true;
}

bool file_write_text(const char *path, const text *text, error *error) {
    if (!text_ok(text))
        return error_set(error, "%s: no memory for its content", path);
    return file_write(path, text->data, text->length, error);
}

bool file_print_text(const text *text, error *error) {
    if (!text_ok(text))
        return error_set(error, "standard output: no memory for what belongs there");
    if (fwrite(text->data, 1, text->length, stdout) != text->length || fflush(stdout) != 0)
        return error_set(error, "standard output: can't be written: %s", strerror(errno));
    return true;
}

bool file_make_folder(const char *path, error *error) {
    struct stat status;
    if (mkdir(path, 0777) == 0)
        return true;
    int reason = errno;
    if (reason == EEXIST && stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return true;
    return error_set(error, "%s: can't be made a folder: %s", path, strerror(reason));
}
