/* What a checkpoint of this program holds beside the network: how to rebuild its data set, and its
 * conformal intervals. */
#ifndef TRAINING_TRAINING_SAVE_H
#define TRAINING_TRAINING_SAVE_H

#include "rp/rp.h"

#include "base/error.h"
#include "dataset/dataset.h"

/* Calibrates the intervals of `checkpoint`'s weights and writes it to `path`. */
bool training_save(const char *path, const rp_checkpoint *checkpoint, const dataset *dataset,
                   error *error);

/* Refuses a checkpoint that was trained on another data set than this one. */
bool training_save_matches(const rp_checkpoint *checkpoint, const dataset *dataset, error *error);

#endif
