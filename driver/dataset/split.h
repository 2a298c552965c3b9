/* The chronological split: by date, the same for all tickers. */
#ifndef DATASET_SPLIT_H
#define DATASET_SPLIT_H

#include "base/error.h"
#include "dataset/dataset.h"

enum { BLOCK_TRAIN, BLOCK_VALIDATION, BLOCK_TEST, BLOCK_COUNT };

/* A window belongs to the block whose days its last day is in. */
typedef struct split {
    int32_t first[BLOCK_COUNT];     /* first day of each block */
    int32_t end[BLOCK_COUNT];       /* the day after its last; before the embargo, if any */
    int32_t label_end[BLOCK_COUNT]; /* labels must be known before this day: the first label day
                                       of the next block */
} split;

/* Finds the cuts: the first train_fraction of all labelled windows by date, rounded down to whole
 * days (or the options' own dates), and of them the last validation_fraction. */
bool split_find(split *out, const market *market, const dataset_options *options, error *error);

/* Days [*begin, *end) of the ticker that end the windows of one block; *purged adds up those that
 * lie in it and are left out. */
void split_days(const split *split, const ticker *ticker, int32_t time_steps, int block,
                int32_t *begin, int32_t *end, int64_t *purged);

#endif
