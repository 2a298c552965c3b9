#ifndef BASE_VERSION_H
#define BASE_VERSION_H

extern const char program_version[];  /* "1.0.0" */
extern const char program_revision[]; /* 40 hex digits of the source's commit */

#endif
