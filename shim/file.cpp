#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checkpoint.h"
#include "guard.h"

namespace rp {
namespace {

constexpr off_t max_file = off_t{1} << 30;

[[noreturn]] void fail(const char *what, const std::string &path) {
    throw error(RP_ERROR_FILE, "can't %s %s: %s", what, path.c_str(), std::strerror(errno));
}

// Closes on every way out; `close()` reports what closing found.
struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) {
            ::close(fd);
        }
    }
    int close() {
        const int result = ::close(fd);
        fd = -1;
        return result;
    }
};

void write_all(int fd, const std::string &bytes, const std::string &path) {
    size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t count = ::write(fd, bytes.data() + done, bytes.size() - done);
        if (count < 0 && errno != EINTR) {
            fail("write", path);
        }
        if (count == 0) { // a write that makes no progress would loop for ever
            errno = EIO;
            fail("write", path);
        }
        done += count > 0 ? static_cast<size_t>(count) : 0;
    }
}

// Removes the temporary file unless the rename took it.
struct Temporary {
    std::string path;
    bool renamed = false;
    ~Temporary() {
        if (!renamed) {
            ::unlink(path.c_str());
        }
    }
};

// What gives a whole file its name, as system calls alone.
struct Placing {
    const char *unnamed; // link to it, or NULL: it is at `temporary`
    const char *temporary;
    const char *path;
};

constexpr int needs_a_name = 255; // no errno

// Returns 0, an errno, or needs_a_name: such a file can't be linked here.
int place(const Placing &placing) {
    if (placing.unnamed != nullptr) {
        ::unlink(placing.temporary); // linkat replaces nothing
        if (::linkat(AT_FDCWD, placing.unnamed, AT_FDCWD, placing.temporary, AT_SYMLINK_FOLLOW) !=
            0) {
            return errno == ENOENT || errno == EPERM || errno == EACCES || errno == EXDEV
                       ? needs_a_name
                       : errno;
        }
    }
    return ::rename(placing.temporary, placing.path) == 0 ? 0 : errno;
}

// place() by a process of its own, which neither a signal nor a kill of this one ends: the name
// that linkat gives would be left behind otherwise. Linux's vfork, not POSIX's: the child shares
// memory and has no fork handlers to run, while this thread waits.
int place_undisturbed(const Placing &placing) {
    volatile int reason = ECHILD;
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const pid_t child = ::vfork();
    if (child == 0) {
        reason = place(placing);
        ::_exit(reason);
    }
    int status = 0;
    if (child < 0) {
        reason = place(placing);
    } else if (::waitpid(child, &status, 0) == child) {
        reason = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
    } // else somebody else takes this process's children: as the child left it
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return reason;
}

// False where a file can't do without a name: some file systems and policies, no /proc.
bool replace(const std::string &folder, const std::string &path, const std::string &bytes,
             bool named) {
    // One temporary name a target: a killed writer's leftover is overwritten by the next one.
    Temporary temporary{path + ".partial"};
    Descriptor file{
        named ? ::open(temporary.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)
              : ::open(folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644)};
    if (file.fd < 0 && !named && (errno == EOPNOTSUPP || errno == EISDIR)) {
        return false;
    }
    if (file.fd < 0) {
        fail("create", temporary.path);
    }
    write_all(file.fd, bytes, temporary.path);
    if (::fsync(file.fd) != 0) {
        fail("write", temporary.path);
    }
    const std::string unnamed = "/proc/self/fd/" + std::to_string(file.fd);
    const Placing placing{named ? nullptr : unnamed.c_str(), temporary.path.c_str(), path.c_str()};
    const int reason = place_undisturbed(placing);
    if (reason == needs_a_name) {
        return false;
    }
    if (reason != 0) {
        errno = reason;
        fail("replace", path);
    }
    temporary.renamed = true;
    if (file.close() != 0) {
        fail("write", path);
    }
    return true;
}

} // namespace

std::string file_read(const std::string &path) {
    // Without waiting: a pipe is refused below.
    Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    struct stat status {};
    if (file.fd < 0 || ::fstat(file.fd, &status) != 0) {
        fail("open", path);
    }
    if (!S_ISREG(status.st_mode)) {
        throw error(RP_ERROR_FILE, "%s is not a regular file", path.c_str());
    }
    if (status.st_size > max_file) {
        throw error(RP_ERROR_FORMAT, "%s is larger than 1 GiB; not a checkpoint of this program",
                    path.c_str());
    }
    std::string bytes(static_cast<size_t>(status.st_size), '\0');
    size_t done = 0;
    while (done < bytes.size()) {
        const ssize_t count = ::read(file.fd, bytes.data() + done, bytes.size() - done);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            fail("read", path);
        }
        if (count == 0) {
            bytes.resize(done); // the file shrank while it was read: the parser will say so
        }
        done += static_cast<size_t>(count);
    }
    return bytes;
}

void file_replace(const std::string &path, const std::string &bytes) {
    const size_t slash = path.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    // Without a name until it is whole and on disk: a kill in the middle leaves nothing behind.
    if (!replace(folder, path, bytes, false)) {
        replace(folder, path, bytes, true);
    }
    Descriptor directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (directory.fd < 0 || ::fsync(directory.fd) != 0) {
        fail("sync", folder);
    }
}

} // namespace rp
