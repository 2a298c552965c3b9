/* Files of assets/ inside the program; the table is written at build time by embed.cmake. */
#ifndef SERVE_ASSET_H
#define SERVE_ASSET_H

#include <stddef.h>

typedef struct asset {
    const char *name;          /* "dashboard.js" */
    const char *type;          /* Content-Type */
    const char *tag;           /* ETag, from the content */
    const unsigned char *data; /* [size] and a NUL */
    size_t size;
} asset;

extern const asset assets[];
extern const size_t asset_count;

/* NULL when there is none of that name. */
const asset *asset_find(const char *name);

#endif
