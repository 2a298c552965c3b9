/* The body of an Open Inference Protocol v2 infer request: JSON alone, or JSON followed by the
 * tensors' bytes (Triton's binary tensor extension: header Inference-Header-Content-Length says
 * where the JSON ends; numbers are little-endian FP32). Pure functions of the bytes. */
#ifndef SERVE_OIP_BODY_H
#define SERVE_OIP_BODY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    OIP_WINDOWS_MOST = 1024, /* of one request: some 10 ms of one core */
    OIP_ID_SIZE = 128
};

#define OIP_INPUT "features" /* FP32 [-1, T, 4] */

/* The model's outputs, each FP32 [-1, columns]. The intervals need a calibrated checkpoint. */
enum { OIP_PREDICTED_RETURN, OIP_INTERVAL_80, OIP_INTERVAL_95, OIP_OUTPUTS };
extern const char *const oip_output_name[OIP_OUTPUTS];
extern const int oip_output_columns[OIP_OUTPUTS];

typedef struct oip_wanted {
    int output; /* OIP_PREDICTED_RETURN, ... */
    bool binary;
} oip_wanted;

typedef struct oip_body {
    bool has_id;
    char id[OIP_ID_SIZE];
    int32_t windows;                /* N */
    float *features;                /* [N][T][F], owned */
    oip_wanted wanted[OIP_OUTPUTS]; /* in the order of the request */
    int wanted_count;
} oip_body;

typedef struct oip_model {
    int32_t time_steps; /* T */
    int outputs;        /* OIP_OUTPUTS, or 1 without intervals */
} oip_model;

/* `json_size` is the length of the JSON part; `size` when there is no binary part. On failure
 * nothing is to be freed. */
bool oip_body_parse(oip_body *out, const oip_model *model, const char *body, size_t size,
                    size_t json_size, error *error);
void oip_body_free(oip_body *body);

#endif
