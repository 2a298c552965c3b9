/* Where one HTTP message ends and the next begins: RFC 9112, read strictly.
 *
 * libmicrohttpd 0.9.75 forgives bare line feeds, folded headers and more that a proxy before it may
 * read differently (request smuggling), and answers what it does not forgive with pages of its own.
 * So every byte passes here first, and what is not to the letter is refused before libmicrohttpd
 * has the whole of it. */
#ifndef SERVE_FRAMING_H
#define SERVE_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAMING_TARGET_MOST = 255, /* bytes of a request's target */
    FRAMING_ARGUMENTS_MOST = 16,
    FRAMING_FIELDS_MOST = 64, /* header fields, and trailer fields */
    FRAMING_WORD = 24
};

typedef struct framing_limits {
    size_t head, body; /* bytes; a body beyond is refused at once only when it is hopeless */
} framing_limits;

/* One connection; begins as zero. */
typedef struct framing {
    int state, field;
    char word[FRAMING_WORD]; /* the version, the field's name or its value so far */
    size_t used;             /* of word; more than it holds when it is longer */
    size_t head, target;     /* bytes so far */
    int arguments, fields, hosts, lengths, codings;
    bool is_1_0, chunked, in_trailer;
    uint64_t left;         /* of the body or chunk */
    uint64_t chunked_size; /* of all chunks so far */
    uint64_t messages;     /* that have ended */
    int status;            /* of the refusal; 0: none */
    const char *reason;
} framing;

/* Reads on. Returns how many of the bytes are good: all, or with `status` set those of the messages
 * before the one that is refused. Cookies, which belong to other services of the same host and
 * which libmicrohttpd would take apart, are blotted out. */
size_t framing_scan(framing *framing, char *bytes, size_t size, const framing_limits *limits);

/* Whether a message has begun and not ended. */
bool framing_is_inside(const framing *framing);

#endif
