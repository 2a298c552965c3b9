#include "serve/framing.h"

#include <string.h>

/* A body up to this many times the limit is read and thrown away before it is refused: a connection
 * that is closed over unread bytes is reset, and the client would not see why. */
enum { DISCARD_FACTOR = 16, CHUNK_LINE_MOST = 256, LENGTH_DIGITS = 18, CHUNK_DIGITS = 15 };

enum state {
    BEGIN, /* of a request, or an empty line before it */
    BEGIN_LF,
    METHOD,
    TARGET,
    VERSION,
    LINE_LF,
    FIELD, /* the beginning of a header line */
    NAME,
    VALUE,
    VALUE_LF,
    HEAD_LF,
    BODY,
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK,
    CHUNK_CR,
    CHUNK_LF
};

enum field { OTHER, HOST, CONTENT_LENGTH, TRANSFER_ENCODING, COOKIE };

static const char *const field_name[] = {[HOST] = "host",
                                         [CONTENT_LENGTH] = "content-length",
                                         [TRANSFER_ENCODING] = "transfer-encoding",
                                         [COOKIE] = "cookie"};

static bool refuse(framing *f, int status, const char *reason) {
    f->status = status;
    f->reason = reason;
    return false;
}

static bool is_token(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

/* Of a field's value: no control characters but tabs. */
static bool is_text(char c) {
    return ((unsigned char)c >= 0x20 && c != 0x7f) || c == '\t';
}

static void add(framing *f, char c) {
    if (f->used < sizeof f->word) {
        f->word[f->used] = c;
    }
    f->used++;
}

static bool word_is(const framing *f, const char *text) {
    return f->used == strlen(text) && memcmp(f->word, text, f->used) == 0;
}

static bool expect(framing *f, char c, char wanted, int next) {
    f->state = next;
    return c == wanted || refuse(f, 400, "a line does not end with CR LF");
}

static bool end_version(framing *f) {
    const char *v = f->word;
    if (f->used != 8 || memcmp(v, "HTTP/", 5) != 0 || v[5] < '0' || v[5] > '9' || v[6] != '.' ||
        v[7] < '0' || v[7] > '9') {
        return refuse(f, 400, "the request line is not 'METHOD /path HTTP/1.1'");
    }
    f->is_1_0 = v[5] == '1' && v[7] == '0';
    return f->is_1_0 || (v[5] == '1' && v[7] == '1') ||
           refuse(f, 505, "this is HTTP/1.1 and HTTP/1.0 only");
}

static bool end_name(framing *f) {
    f->field = OTHER;
    for (int i = HOST; i <= COOKIE; i++) {
        f->field = word_is(f, field_name[i]) ? i : f->field;
    }
    f->used = 0;
    f->state = VALUE;
    return true;
}

static bool read_length(framing *f) {
    bool digits = f->used > 0;
    f->left = 0;
    for (size_t i = 0; i < f->used && i < sizeof f->word; i++) {
        digits &= f->word[i] >= '0' && f->word[i] <= '9';
        f->left = i < LENGTH_DIGITS ? f->left * 10 + (uint64_t)(f->word[i] - '0') : UINT64_MAX;
    }
    f->left = f->used > LENGTH_DIGITS ? UINT64_MAX : f->left;
    return digits || refuse(f, 400, "Content-Length is not a number");
}

static bool end_value(framing *f) {
    if (++f->fields > FRAMING_FIELDS_MOST) {
        return refuse(f, 431, "there are more than 64 header fields");
    }
    if (f->in_trailer) {
        return true;
    }
    f->hosts += f->field == HOST;
    if (f->field == CONTENT_LENGTH) {
        f->lengths++;
        return read_length(f);
    }
    if (f->field == TRANSFER_ENCODING) {
        f->codings++;
        f->chunked = f->used == 7 && strncmp(f->word, "chunked", 7) == 0;
    }
    return true;
}

static void begin_message(framing *f) {
    const framing fresh = {.state = BEGIN, .messages = f->messages + 1};
    *f = fresh;
}

/* RFC 9112, 6.3: the length, when nobody can read it differently. */
static bool end_head(framing *f, const framing_limits *limits) {
    if (f->in_trailer) {
        begin_message(f);
        return true;
    }
    if (f->hosts > 1 || (f->hosts == 0 && !f->is_1_0)) {
        return refuse(f, 400, "a request has exactly one Host");
    }
    if (f->lengths + f->codings > 1) {
        return refuse(f, 400, "the body's length is given more than once");
    }
    if (f->codings > 0 && f->is_1_0) {
        return refuse(f, 400, "HTTP/1.0 has no Transfer-Encoding");
    }
    if (f->codings > 0 && !f->chunked) {
        return refuse(f, 501, "the only Transfer-Encoding here is chunked");
    }
    if (f->lengths > 0 && f->left / DISCARD_FACTOR > limits->body) {
        return refuse(f, 413, "the body is larger than --max-body");
    }
    if (f->codings > 0) {
        f->used = 0;
        f->left = 0;
        f->state = CHUNK_SIZE;
    } else if (f->left > 0) {
        f->state = BODY;
    } else {
        begin_message(f);
    }
    return true;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool step_chunk_size(framing *f, char c) {
    const int digit = hex_digit(c);
    if (digit >= 0) {
        f->left = f->left * 16 + (uint64_t)digit;
        return ++f->used <= CHUNK_DIGITS || refuse(f, 413, "a chunk is larger than --max-body");
    }
    f->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
    return (f->used > 0 && (c == '\r' || c == ';' || c == ' ' || c == '\t')) ||
           refuse(f, 400, "a chunk does not begin with its size");
}

static bool end_chunk_size(framing *f, char c, const framing_limits *limits) {
    const bool last = f->left == 0;
    f->chunked_size += f->left;
    if (f->chunked_size / DISCARD_FACTOR > limits->body) {
        return refuse(f, 413, "the body is larger than --max-body");
    }
    f->in_trailer = last;
    f->fields = last ? 0 : f->fields;
    f->head = last ? 0 : f->head;
    return expect(f, c, '\n', last ? FIELD : CHUNK);
}

static bool step_line(framing *f, char c) {
    switch (f->state) {
    case METHOD:
        f->state = c == ' ' ? TARGET : METHOD;
        break;
    case TARGET:
        if (c == ' ' && f->target > 0) {
            f->used = 0;
            f->state = VERSION;
            return true;
        }
        f->arguments += c == '?' || c == '&';
        return ((++f->target <= FRAMING_TARGET_MOST && f->arguments <= FRAMING_ARGUMENTS_MOST) ||
                refuse(f, 414,
                       "the address is longer than 255 bytes, or has more than 16 arguments")) &&
               ((is_text(c) && c != ' ' && c != '\t') ||
                refuse(f, 400, "the request line is not 'METHOD /path HTTP/1.1'"));
    default: /* VERSION */
        if (c == '\r') {
            f->state = LINE_LF;
            return end_version(f);
        }
        add(f, c);
        return is_text(c) || refuse(f, 400, "the request line is not 'METHOD /path HTTP/1.1'");
    }
    return c == ' ' || is_token(c) ||
           refuse(f, 400, "the request line is not 'METHOD /path HTTP/1.1'");
}

static char lower(char c) {
    if (c >= 'A' && c <= 'Z') {
        return (char)(c + ('a' - 'A'));
    }
    return c;
}

static bool step_field(framing *f, char *at) {
    const char c = *at;
    if (f->state == FIELD && c == '\r') {
        f->state = HEAD_LF;
        return true;
    }
    if (f->state == FIELD) {
        f->used = 0;
        f->state = NAME;
    }
    if (f->state == NAME) {
        if (c == ':' && f->used > 0) {
            return end_name(f);
        }
        add(f, lower(c));
        return is_token(c) || refuse(f, 400, "a header is malformed");
    }
    if (c == '\r') {
        f->state = VALUE_LF;
        return end_value(f);
    }
    if (f->used > 0 || c != ' ') { /* other white space makes libmicrohttpd take it for another */
        if (f->field == TRANSFER_ENCODING) {
            add(f, lower(c));
        } else {
            add(f, c);
        }
    }
    if (!is_text(c)) {
        return refuse(f, 400, "a header is malformed");
    }
    if (f->field == COOKIE) {
        *at = 'x';
    }
    return true;
}

static bool step(framing *f, char *at, const framing_limits *limits) {
    const char c = *at;
    switch (f->state) {
    case BEGIN:
        f->state = c == '\r' ? BEGIN_LF : METHOD;
        return c == '\r' || is_token(c) ||
               refuse(f, 400, "the request line is not 'METHOD /path HTTP/1.1'");
    case BEGIN_LF:
        return expect(f, c, '\n', BEGIN);
    case LINE_LF:
    case VALUE_LF:
        return expect(f, c, '\n', FIELD);
    case HEAD_LF:
        return expect(f, c, '\n', BEGIN) && end_head(f, limits);
    case CHUNK_SIZE:
        return step_chunk_size(f, c);
    case CHUNK_EXTENSION:
        f->state = c == '\r' ? CHUNK_SIZE_LF : CHUNK_EXTENSION;
        return c == '\r' || (is_text(c) && ++f->used < CHUNK_LINE_MOST) ||
               refuse(f, 400, "a chunk's extension is malformed");
    case CHUNK_SIZE_LF:
        return end_chunk_size(f, c, limits);
    case CHUNK_CR:
        return expect(f, c, '\r', CHUNK_LF);
    case CHUNK_LF:
        f->used = 0;
        return expect(f, c, '\n', CHUNK_SIZE);
    case METHOD:
    case TARGET:
    case VERSION:
        return step_line(f, c);
    default:
        return step_field(f, at);
    }
}

/* Bytes of the body or chunk, as many as are here. */
static size_t pass_body(framing *f, size_t size) {
    const size_t count = f->left < size ? (size_t)f->left : size;
    f->left -= count;
    if (f->left == 0 && f->state == CHUNK) {
        f->state = CHUNK_CR;
    } else if (f->left == 0) {
        begin_message(f);
    }
    return count;
}

/* Bytes of a value that nothing here reads. */
static size_t pass_value(const char *bytes, size_t size) {
    size_t count = 0;
    while (count < size && is_text(bytes[count])) {
        count++;
    }
    return count;
}

size_t framing_scan(framing *f, char *bytes, size_t size, const framing_limits *limits) {
    size_t good = 0;
    for (size_t i = 0; i < size;) {
        if (f->state == BEGIN) {
            good = i;
        }
        if (f->state == BODY || f->state == CHUNK) {
            i += pass_body(f, size - i);
            continue;
        }
        const bool in_head = f->state < BODY;
        const bool unread = f->state == VALUE && f->field == OTHER && is_text(bytes[i]);
        const size_t count = unread ? pass_value(bytes + i, size - i) : 1;
        if (!unread && !step(f, &bytes[i], limits)) {
            return good;
        }
        i += count;
        f->head += in_head && f->state != BEGIN ? count : 0;
        if (in_head && f->head > limits->head) {
            refuse(f, 431, "the header is larger than --max-header");
            return good;
        }
    }
    return size;
}

bool framing_is_inside(const framing *framing) {
    return framing->state != BEGIN;
}
