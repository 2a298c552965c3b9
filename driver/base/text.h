/* Growing text, for JSON, CSV and HTML that is written as a whole file.
 *
 * Appending never fails to its caller: when memory runs out the text remembers it, and text_ok or
 * file_write_text says so once at the end. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

typedef struct text {
    char *data; /* [length] and a NUL, owned; NULL while empty */
    size_t length, capacity;
    bool out_of_memory;
} text;

void text_append(text *text, const void *bytes, size_t size);
void text_append_string(text *text, const char *string);
/* For HTML: < > & and quotes as entities. */
void text_append_html(text *text, const char *string);
void text_printf(text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The shortest decimal (at most 17 significant digits) that reads back as the same double. */
void text_append_double(text *text, double value);
bool text_ok(const text *text);
void text_free(text *text);

#endif
