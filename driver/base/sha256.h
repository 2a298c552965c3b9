/* SHA-256 (FIPS 180-4), to name the files that a result was computed from. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include <stddef.h>

enum { SHA256_TEXT_SIZE = 65 }; /* 64 hex digits and a NUL */

void sha256_text(char text[SHA256_TEXT_SIZE], const void *data, size_t size);
/* The same without the processor's SHA instructions, for tests. */
void sha256_text_portable(char text[SHA256_TEXT_SIZE], const void *data, size_t size);

#endif
