/* What a checkpoint of this program holds beside the network: how to rebuild its data set, and its
 * conformal intervals. */
#ifndef TRAINING_TRAINING_SAVE_H
#define TRAINING_TRAINING_SAVE_H

#include "rp/rp.h"

#include "base/error.h"
#include "dataset/dataset.h"

/* Metadata: the validation windows' mean squared error after each epoch, "a b c". */
#define TRAINING_VALIDATION_LOSSES "validation.epoch_losses"

/* Calibrates the intervals of `checkpoint`'s weights and writes it to `path`. `validation_losses`
 * NULL: there are none. */
bool training_save(const char *path, const rp_checkpoint *checkpoint, const dataset *dataset,
                   const char *validation_losses, error *error);

/* Refuses a checkpoint that was trained on another data set than this one. */
bool training_save_matches(const rp_checkpoint *checkpoint, const dataset *dataset, error *error);

#endif
