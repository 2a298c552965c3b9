#include "model/model.h"

#include <stdio.h>
#include <string.h>

bool model_load(model *out, const char *path, int32_t threads, error *error) {
    memset(out, 0, sizeof *out);
    bool ok = rp_checkpoint_load(&out->checkpoint, path) == RP_OK &&
              rp_predictor_create(&out->predictor, out->checkpoint, threads) == RP_OK;
    if (!ok) {
        error_set(error, "%s: %s", path, rp_last_error());
    } else {
        struct error reason = {""};
        ok = dataset_metadata_read(&out->metadata, out->checkpoint, &reason);
        if (!ok) {
            error_set(error, "%s: %s", path, reason.message);
        }
    }
    if (!ok) {
        model_free(out);
        return false;
    }
    const char *checksum = rp_checkpoint_metadata(out->checkpoint, "checkpoint.checksum");
    snprintf(out->version, sizeof out->version, "%s", checksum ? checksum : "");
    return true;
}

void model_free(model *model) {
    rp_predictor_free(model->predictor);
    rp_checkpoint_free(model->checkpoint);
    memset(model, 0, sizeof *model);
}

bool model_dataset(dataset *out, const model *model, const market *market, error *error) {
    return dataset_metadata_rebuild(out, &model->metadata, model->checkpoint, market, error);
}
