/* Independent pieces of work, spread over the processor's cores. */
#ifndef BASE_PARALLEL_H
#define BASE_PARALLEL_H

#include <stdint.h>

/* Calls body(index, context) once for each 0 <= index < count, in any order and at the same time on
 * every core; returns when all are done. Pieces must not write to what others touch. */
void parallel_for(int64_t count, void (*body)(int64_t index, void *context), void *context);

#endif
