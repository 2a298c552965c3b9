/* The snapshot that answers now, and the thread that replaces it.
 *
 * A reload loads everything anew beside the old snapshot and then swaps one pointer. When loading
 * fails the old one stays. Requests that began with the old one finish with it. */
#ifndef SERVE_MODEL_STORE_H
#define SERVE_MODEL_STORE_H

#include "serve/snapshot.h"

typedef struct model_store model_store;

/* Told of the end of a reload, on the store's thread: `message` is the new version or what failed.
 */
typedef void (*reload_done)(void *context, bool ok, const char *message);

/* Loads the first snapshot before it returns; the table is filled in the background. */
bool model_store_open(model_store **out, const snapshot_sources *sources, int32_t workers,
                      error *error);
/* Ends the loader's thread: who waits for a reload is answered, nothing is loaded any more. What is
 * there can still be held. */
void model_store_stop(model_store *store);
/* Frees it; no other thread may use it by then. */
void model_store_close(model_store *store);

/* The present snapshot, with a reference that the caller releases. */
snapshot *model_store_hold(model_store *store);

/* Counts swaps; when it has not moved, what was held before is still the present one. */
uint64_t model_store_generation(const model_store *store);

/* `done` may be NULL. False, and no call of `done`, when too many are waiting already. */
bool model_store_reload(model_store *store, reload_done done, void *context);

typedef struct model_store_counts {
    int64_t reloads, failures;
} model_store_counts;
model_store_counts model_store_count(model_store *store);

#endif
