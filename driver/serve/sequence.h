/* The body that arrives most often, {"sequence": [[f, f, f, f] x T]}, read without building a JSON
 * document: 2 us instead of the 27 us of a general parser.
 *
 * The scanner only ever says "yes, and here are the numbers" or "not sure". Whatever it is not sure
 * of (escapes, other members, errors, numbers that are hard to round) goes to predict_body.c, which
 * decides. Both give the same floats to the bit; a fuzzer holds them against each other. */
#ifndef SERVE_SEQUENCE_H
#define SERVE_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* window [time_steps][DATASET_FEATURES]. */
bool sequence_scan(float *window, int32_t time_steps, const char *body, size_t size);

#endif
