// The thread-local message behind rp_last_error(): a fixed buffer, so that reporting that memory
// is exhausted needs none.
#include "guard.h"

#include <cstdio>
#include <cstring>

namespace rp {
namespace {
thread_local char last_error[1024] = "";
}

rp_status remember(rp_status status, const char *message) noexcept {
    std::snprintf(last_error, sizeof last_error, "%s", message);
    return status;
}

Error error(rp_status status, const char *format, ...) {
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return {status, message};
}
} // namespace rp

const char *rp_last_error(void) {
    return rp::last_error;
}

const char *rp_version(void) {
    return RP_VERSION;
}
