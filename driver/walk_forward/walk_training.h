/* Trains the models of a plan that are not finished, as many at once as the device takes. */
#ifndef WALK_FORWARD_WALK_TRAINING_H
#define WALK_FORWARD_WALK_TRAINING_H

#include "walk_forward/plan.h"

typedef struct walk_training_result {
    int64_t trained, failed;
    int64_t samples;
    double train_seconds; /* inside rp_trainers_run */
    bool interrupted;     /* by SIGINT or SIGTERM */
} walk_training_result;

/* Each finished model is in its file; why one failed is in its job. False: something that is not
 * one model's own, such as a full disk. */
bool walk_train(walk_training_result *result, walk_plan *plan, error *error);

#endif
