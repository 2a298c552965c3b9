#include "training/training_save.h"

#include <string.h>

#include "dataset/dataset_metadata.h"
#include "report/conformal.h"
#include "training/training.h"

bool training_save(const char *path, const rp_checkpoint *checkpoint, const dataset *dataset,
                   const char *validation_losses, error *error) {
    rp_predictor *predictor = NULL;
    conformal intervals;
    if (rp_predictor_create(&predictor, checkpoint, 0) != RP_OK) {
        return training_fail(error, "predicting");
    }
    const bool calibrated = conformal_calibrate(&intervals, dataset, predictor, error);
    rp_predictor_free(predictor);
    if (!calibrated) {
        return false;
    }
    dataset_metadata metadata;
    dataset_metadata_lines lines;
    dataset_metadata_describe(&metadata, dataset, &intervals);
    dataset_metadata_write(&lines, &metadata);
    if (validation_losses) {
        lines.lines[lines.count++] = (rp_metadata){TRAINING_VALIDATION_LOSSES, validation_losses};
    }
    return rp_checkpoint_save(checkpoint, path, lines.lines, lines.count) == RP_OK
               ? true
               : training_fail(error, "can't save");
}

bool training_save_matches(const rp_checkpoint *checkpoint, const dataset *dataset, error *error) {
    dataset_metadata metadata;
    if (!dataset_metadata_read(&metadata, checkpoint, error)) {
        return false;
    }
    if (strcmp(metadata.sha256, dataset->market->sha256) != 0) {
        return error_set(error,
                         "--resume: the checkpoint was trained on other price files "
                         "(SHA-256 %.12s..., these are %.12s...); train anew, or give it its files",
                         metadata.sha256, dataset->market->sha256);
    }
    return true;
}
