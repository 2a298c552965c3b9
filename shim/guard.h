// The one place where exceptions become statuses: every entry of rp.h runs inside guard().
#pragma once

#include <cstdarg>
#include <exception>
#include <new>
#include <string>

#include "backend.h"

namespace rp {

// Keeps the message for rp_last_error() of this thread; returns `status`.
rp_status remember(rp_status status, const char *message) noexcept;

// printf-style Error, ready to throw.
[[gnu::format(printf, 2, 3)]] Error error(rp_status status, const char *format, ...);

template <typename Body> rp_status guard(Body &&body) noexcept {
    try {
        body();
        return RP_OK;
    } catch (const Error &failure) {
        return remember(failure.status, failure.message.c_str());
    } catch (const std::bad_alloc &) {
        return remember(RP_ERROR_MEMORY, "out of memory");
    } catch (const std::exception &failure) {
        return remember(RP_ERROR_INTERNAL, failure.what());
    } catch (...) {
        return remember(RP_ERROR_INTERNAL, "an unknown exception was thrown");
    }
}

// Refuses a NULL argument by its name.
template <typename T> void require(const T *pointer, const char *name) {
    if (!pointer) {
        throw error(RP_ERROR_ARGUMENT, "%s is NULL", name);
    }
}

} // namespace rp
