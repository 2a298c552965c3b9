/* Whole files, read and written. A file is written to a temporary name in its own folder, fsynced
 * and renamed, so that a reader sees the old content or the new and never half of either. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/text.h"

/* *data [*size] and a NUL; the caller frees it. */
bool file_read(const char *path, char **data, size_t *size, error *error);

bool file_write(const char *path, const void *data, size_t size, error *error);
/* The same, and an error when the text ran out of memory. */
bool file_write_text(const char *path, const text *text, error *error);

/* Writes the text to standard output; a full disk or a closed pipe is an error. */
bool file_print_text(const text *text, error *error);

/* Makes the folder unless it is there; its parent must be. */
bool file_make_folder(const char *path, error *error);

#endif
