/* Whether text is one JSON object; apart, because base/json.h and jansson.h name functions alike.
 */
#ifndef FUZZ_JSON_LINE_H
#define FUZZ_JSON_LINE_H

#include <stdbool.h>
#include <stddef.h>

bool json_line_is_object(const char *text, size_t size);

#endif
