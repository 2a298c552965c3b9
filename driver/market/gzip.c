#include "market/gzip.h"

#include <limits.h>
#include <stdlib.h>

#ifdef RP_HAVE_ZLIB
#include <zlib.h>
#endif

bool gzip_is(const char *data, size_t size) {
    return size >= 2 && data[0] == '\x1f' && data[1] == '\x8b';
}

#ifdef RP_HAVE_ZLIB

/* A small file may unpack to anything; a price file of more than this is not meant. */
static const size_t most_unpacked = (size_t)1 << 32;

/* Inflates member after member until the input ends. */
static int inflate_all(z_stream *stream, char **out, size_t *out_size, size_t *capacity) {
    for (;;) {
        if (*out_size + 1 >= *capacity) {
            size_t larger = *capacity * 2 > UINT_MAX ? *capacity + (UINT_MAX / 4) : *capacity * 2;
            char *grown = larger > most_unpacked ? NULL : realloc(*out, larger);
            if (!grown)
                return Z_MEM_ERROR;
            *out = grown;
            *capacity = larger;
        }
        size_t room = *capacity - *out_size - 1;
        stream->next_out = (unsigned char *)*out + *out_size;
        stream->avail_out = room > UINT_MAX ? UINT_MAX : (unsigned)room;
        unsigned offered = stream->avail_out;
        int result = inflate(stream, Z_NO_FLUSH);
        *out_size += offered - stream->avail_out;
        if (result == Z_STREAM_END && stream->avail_in > 0)
            result = inflateReset(stream);
        else if (result != Z_OK || (stream->avail_in == 0 && stream->avail_out > 0))
            return result;
        if (result != Z_OK)
            return result;
    }
}

bool gzip_unpack(char **out, size_t *out_size, const char *path, const char *data, size_t size,
                 error *error) {
    z_stream stream = {0};
    size_t capacity = size * 4 + 1024;
    *out_size = 0;
    *out = size <= UINT_MAX / 4 ? malloc(capacity) : NULL;
    if (!*out || inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) {
        free(*out);
        *out = NULL;
        return error_set(error, "%s: no memory to unpack its %zu bytes", path, size);
    }
    stream.next_in = (unsigned char *)data; /* zlib doesn't write to it */
    stream.avail_in = (unsigned)size;
    int result = inflate_all(&stream, out, out_size, &capacity);
    inflateEnd(&stream);
    if (result == Z_STREAM_END) {
        (*out)[*out_size] = '\0';
        return true;
    }
    free(*out);
    *out = NULL;
    if (result == Z_MEM_ERROR)
        return error_set(error, "%s: no memory to unpack it", path);
    if (result == Z_OK || result == Z_BUF_ERROR)
        return error_set(error, "%s: the gzip file is cut short; fetch it again", path);
    return error_set(error, "%s: damaged gzip file; fetch it again", path);
}

#else

bool gzip_unpack(char **out, size_t *out_size, const char *path, const char *data, size_t size,
                 error *error) {
    (void)data;
    (void)size;
    *out = NULL;
    *out_size = 0;
    return error_set(error, "%s: gzip, but this program was built without zlib; unpack it first",
                     path);
}

#endif
