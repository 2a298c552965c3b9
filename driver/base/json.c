#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

static void new_line(json *json, int depth) {
    if (depth >= json->lines)
        return;
    text_append(&json->text, "\n", 1);
    for (int i = 0; i <= depth; ++i)
        text_append(&json->text, "  ", 2);
}

/* Length of the UTF-8 sequence at `s`, or 0 when it is not one (overlong and surrogates too). */
static int utf8_length(const unsigned char *s) {
    if (s[0] < 0x80)
        return 1;
    int length = s[0] >= 0xf0 && s[0] <= 0xf4   ? 4
                 : s[0] >= 0xe0 && s[0] <= 0xef ? 3
                 : s[0] >= 0xc2 && s[0] <= 0xdf ? 2
                                                : 0;
    for (int i = 1; i < length; ++i)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return length;
}

static void append_quoted(text *text, const char *value) {
    text_append(text, "\"", 1);
    for (const unsigned char *s = (const unsigned char *)value; *s;) {
        int length = utf8_length(s);
        if (length == 0)
            text_append(text, "\xef\xbf\xbd", 3);
        else if (*s == '"' || *s == '\\')
            text_printf(text, "\\%c", *s);
        else if (*s < 0x20)
            text_printf(text, "\\u%04x", (unsigned)*s);
        else
            text_append(text, s, (size_t)length);
        s += length ? length : 1;
    }
    text_append(text, "\"", 1);
}

static void begin_value(json *json, const char *key) {
    if (json->depth > 0) {
        if (json->filled[json->depth])
            text_append_string(&json->text, json->depth - 1 < json->lines ? "," : ", ");
        new_line(json, json->depth - 1);
    }
    json->filled[json->depth] = true;
    if (key) {
        append_quoted(&json->text, key);
        text_append(&json->text, ": ", 2);
    }
}

static void open_container(json *json, const char *key, const char *opening, char closing) {
    assert(json->depth < JSON_DEPTH);
    begin_value(json, key);
    text_append(&json->text, opening, 1);
    json->closing[json->depth++] = closing;
    json->filled[json->depth] = false;
}

void json_object(json *json, const char *key) {
    open_container(json, key, "{", '}');
}

void json_array(json *json, const char *key) {
    open_container(json, key, "[", ']');
}

void json_end(json *json) {
    assert(json->depth > 0);
    bool filled = json->filled[json->depth--];
    if (filled && json->depth < json->lines) {
        text_append(&json->text, "\n", 1);
        for (int i = 0; i < json->depth; ++i)
            text_append(&json->text, "  ", 2);
    }
    text_append(&json->text, &json->closing[json->depth], 1);
}

void json_string(json *json, const char *key, const char *value) {
    begin_value(json, key);
    if (value)
        append_quoted(&json->text, value);
    else
        text_append_string(&json->text, "null");
}

void json_double(json *json, const char *key, double value) {
    begin_value(json, key);
    if (isfinite(value))
        text_append_double(&json->text, value);
    else
        text_append_string(&json->text, "null");
}

void json_int(json *json, const char *key, int64_t value) {
    begin_value(json, key);
    text_printf(&json->text, "%" PRId64, value);
}

void json_bool(json *json, const char *key, bool value) {
    begin_value(json, key);
    text_append_string(&json->text, value ? "true" : "false");
}

void json_null(json *json, const char *key) {
    json_string(json, key, NULL);
}

bool json_write(json *json, const char *path, error *error) {
    assert(json->depth == 0);
    text_append(&json->text, "\n", 1);
    if (path)
        return file_write_text(path, &json->text, error);
    return file_print_text(&json->text, error);
}

void json_free(json *json) {
    text_free(&json->text);
}
