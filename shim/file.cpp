#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
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

void write_and_sync(int fd, const std::string &bytes, const std::string &path) {
    write_all(fd, bytes, path);
    if (::fsync(fd) != 0) {
        fail("write", path);
    }
}

// The file has no name until it is whole and on disk, so that a kill meanwhile leaves nothing
// behind. False where that can't be had: some file systems, no /proc.
bool write_unnamed(const std::string &folder, const std::string &path, const std::string &bytes) {
    Descriptor file{::open(folder.c_str(), O_WRONLY | O_TMPFILE | O_CLOEXEC, 0644)};
    if (file.fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        return false;
    }
    if (file.fd < 0) {
        fail("create", path);
    }
    write_and_sync(file.fd, bytes, path);
    ::unlink(path.c_str()); // linkat replaces nothing
    const std::string unnamed = "/proc/self/fd/" + std::to_string(file.fd);
    if (::linkat(AT_FDCWD, unnamed.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
        if (errno == ENOENT) {
            return false;
        }
        fail("name", path);
    }
    if (file.close() != 0) {
        fail("write", path);
    }
    return true;
}

void write_named(const std::string &path, const std::string &bytes) {
    Descriptor file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
    if (file.fd < 0) {
        fail("create", path);
    }
    write_and_sync(file.fd, bytes, path);
    if (file.close() != 0) {
        fail("write", path);
    }
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
    // One temporary name a target: a killed writer's leftover is overwritten by the next one.
    Temporary temporary{path + ".partial"};
    if (!write_unnamed(folder, temporary.path, bytes)) {
        write_named(temporary.path, bytes);
    }
    if (::rename(temporary.path.c_str(), path.c_str()) != 0) {
        fail("replace", path);
    }
    temporary.renamed = true;
    Descriptor directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (directory.fd < 0 || ::fsync(directory.fd) != 0) {
        fail("sync", folder);
    }
}

} // namespace rp
