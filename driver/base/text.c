#include "base/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool text_reserve(text *text, size_t extra) {
    if (text->out_of_memory)
        return false;
    if (extra < text->capacity - text->length)
        return true;
    size_t needed = text->length + extra + 1;
    size_t capacity = text->capacity * 2 > needed ? text->capacity * 2 : needed + 1024;
    char *data = needed > extra ? realloc(text->data, capacity) : NULL;
    if (!data) {
        text->out_of_memory = true;
        return false;
    }
    text->data = data;
    text->capacity = capacity;
    return true;
}

void text_append(text *text, const void *bytes, size_t size) {
    if (size == 0 || !text_reserve(text, size))
        return;
    memcpy(text->data + text->length, bytes, size);
    text->length += size;
    text->data[text->length] = '\0';
}

void text_append_string(text *text, const char *string) {
    text_append(text, string, strlen(string));
}

void text_append_html(text *text, const char *string) {
    static const char special[] = "<>&\"";
    static const char *const entity[] = {"&lt;", "&gt;", "&amp;", "&quot;"};
    while (*string) {
        size_t plain = strcspn(string, special);
        text_append(text, string, plain);
        string += plain;
        if (*string)
            text_append_string(text, entity[strchr(special, *string++) - special]);
    }
}

void text_printf(text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (size <= 0 || !text_reserve(text, (size_t)size))
        return;
    va_start(arguments, format);
    vsnprintf(text->data + text->length, (size_t)size + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)size;
}

void text_append_double(text *text, double value) {
    char digits[32];
    int length = 0;
    for (int precision = 15; precision <= 17; ++precision) {
        length = snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    text_append(text, digits, (size_t)length);
}

bool text_ok(const text *text) {
    return !text->out_of_memory;
}

void text_free(text *text) {
    free(text->data);
    *text = (struct text){0};
}
