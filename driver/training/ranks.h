/* The processes of a job that share its work, as torchrun and Kubernetes start them: RANK,
 * WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which one this is and
 * where they meet. Without WORLD_SIZE, or with 1, it is alone. */
#ifndef TRAINING_RANKS_H
#define TRAINING_RANKS_H

#include <stdint.h>

#include "rp/rp.h"

#include "base/error.h"

enum { RANKS_SILENCE_SECONDS = 15 };

typedef struct ranks {
    int32_t rank, count;             /* 0 of 1 when alone */
    int32_t local_rank, local_count; /* the same on this machine */
    rp_ranks *handle;                /* NULL when alone */
} ranks;

/* Where several ranks share a machine, each takes one GPU: the CUDA_VISIBLE_DEVICES of this process
 * becomes its own. silence_seconds: after which a rank counts as dead. */
bool ranks_join(ranks *out, int64_t silence_seconds, error *error);
void ranks_leave(ranks *ranks);

/* Adds to a counter of all ranks; *value is what this process last knew of it on entry, and the new
 * value on return. */
bool ranks_add(int64_t *value, ranks *ranks, const char *counter, int64_t amount, error *error);

/* False, naming it, when a rank is dead. */
bool ranks_check(ranks *ranks, error *error);

/* Returns when every rank is here. */
bool ranks_wait(ranks *ranks, const char *place, error *error);

/* Threads of this process when the machine's cores are divided by its ranks; `asked` where it is
 * not 0. */
int32_t ranks_threads(const ranks *ranks, int32_t asked);

#endif
