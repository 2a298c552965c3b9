/* A trained model as evaluate, predict and serve use it: its checkpoint, what that remembers of
 * its data, and the network ready to run. Needs no libtorch. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "dataset/dataset_metadata.h"
#include "rp/rp.h"

enum { MODEL_VERSION_SIZE = 13 };

typedef struct model {
    rp_checkpoint *checkpoint;
    rp_predictor *predictor;
    dataset_metadata metadata;
    char version[MODEL_VERSION_SIZE]; /* first 12 hex digits of the checkpoint's checksum */
} model;

/* `threads` 0: one a core. On failure nothing is to be freed. */
bool model_load(model *out, const char *path, int32_t threads, error *error);
void model_free(model *model);

/* The data set of `market` that this model understands: its scaler, its windows, its split. */
bool model_dataset(dataset *out, const model *model, const market *market, error *error);

#endif
