/* Trains the models of a plan that are not finished, as many at once as the device takes. Several
 * ranks take jobs from one counter, so that none waits for another until the end. */
#ifndef WALK_FORWARD_WALK_TRAINING_H
#define WALK_FORWARD_WALK_TRAINING_H

#include "training/ranks.h"
#include "walk_forward/plan.h"

typedef struct walk_training_result {
    int64_t trained, failed, samples; /* of all ranks, once walk_train has returned */
    double train_seconds;             /* inside rp_trainers_run; of several ranks, the mean */
    bool interrupted;                 /* by SIGINT or SIGTERM */
} walk_training_result;

/* Each finished model is in its file; why one failed is in its job. Returns when all ranks are
 * through. False: something that is not one model's own, such as a full disk or a dead rank. */
bool walk_train(walk_training_result *result, walk_plan *plan, ranks *ranks, error *error);

#endif
