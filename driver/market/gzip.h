/* gzip (RFC 1952), when the build has zlib. */
#ifndef MARKET_GZIP_H
#define MARKET_GZIP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

bool gzip_is(const char *data, size_t size);
/* *out [*out_size] and a NUL, owned by the caller. `path` is for messages. */
bool gzip_unpack(char **out, size_t *out_size, const char *path, const char *data, size_t size,
                 error *error);

#endif
