#define _POSIX_C_SOURCE 200809L
#include "serve/model_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "serve/event_log.h"

enum { WAITING = 16 };

typedef struct waiter {
    reload_done done;
    void *context;
} waiter;

struct model_store {
    snapshot_sources sources;
    int32_t workers;
    pthread_t loader;
    bool started;
    atomic_ullong generation;

    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    snapshot *present;
    waiter waiting[WAITING];
    int32_t waiting_count;
    bool wanted, closing;
    model_store_counts counts;
};

snapshot *model_store_hold(model_store *store) {
    pthread_mutex_lock(&store->mutex);
    snapshot *present = snapshot_hold(store->present);
    pthread_mutex_unlock(&store->mutex);
    return present;
}

uint64_t model_store_generation(const model_store *store) {
    return atomic_load_explicit(&store->generation, memory_order_acquire);
}

model_store_counts model_store_count(model_store *store) {
    pthread_mutex_lock(&store->mutex);
    model_store_counts counts = store->counts;
    pthread_mutex_unlock(&store->mutex);
    return counts;
}

bool model_store_reload(model_store *store, reload_done done, void *context) {
    pthread_mutex_lock(&store->mutex);
    bool accepted = !store->closing && (!done || store->waiting_count < WAITING);
    if (accepted) {
        store->wanted = true;
        if (done) {
            store->waiting[store->waiting_count++] = (waiter){done, context};
        }
        pthread_cond_signal(&store->changed);
    }
    pthread_mutex_unlock(&store->mutex);
    return accepted;
}

/* Outside the mutex, but for the swap. */
static void reload(model_store *store, const waiter *waiting, int32_t count) {
    snapshot *fresh = NULL;
    error error = {""};
    const bool ok = snapshot_load(&fresh, &store->sources, store->workers, &error);
    const char *message = ok ? fresh->model.version : error.message;
    pthread_mutex_lock(&store->mutex);
    snapshot *old = NULL;
    store->counts.reloads++;
    store->counts.failures += !ok;
    if (ok) {
        old = store->present;
        store->present = fresh;
        atomic_fetch_add_explicit(&store->generation, 1, memory_order_release);
    }
    pthread_mutex_unlock(&store->mutex);
    event_log(ok ? "NOTICE" : "ERROR",
              ok ? "reloaded: model version %s" : "reload failed, the old model stays: %s",
              message);
    for (int32_t i = 0; i < count; i++) {
        waiting[i].done(waiting[i].context, ok, message);
    }
    snapshot_release(old);
}

static bool take_work(model_store *store, bool *wanted, waiter *waiting, int32_t *count,
                      bool idle) {
    pthread_mutex_lock(&store->mutex);
    while (idle && !store->wanted && !store->closing) {
        pthread_cond_wait(&store->changed, &store->mutex);
    }
    *wanted = store->wanted;
    *count = store->waiting_count;
    memcpy(waiting, store->waiting, sizeof store->waiting);
    store->wanted = false;
    store->waiting_count = 0;
    bool go_on = !store->closing || *count > 0;
    pthread_mutex_unlock(&store->mutex);
    return go_on;
}

static void *load_and_fill(void *argument) {
    model_store *store = argument;
    waiter waiting[WAITING];
    int32_t count;
    bool wanted, idle = false;
    while (take_work(store, &wanted, waiting, &count, idle)) {
        if (wanted) {
            reload(store, waiting, count);
        }
        snapshot *present = model_store_hold(store);
        idle = !snapshot_fill(present);
        snapshot_release(present);
    }
    return NULL;
}

bool model_store_open(model_store **out, const snapshot_sources *sources, int32_t workers,
                      error *error) {
    *out = NULL;
    model_store *store = calloc(1, sizeof *store);
    if (!store) {
        return error_set(error, "no memory");
    }
    store->sources = *sources;
    store->workers = workers;
    pthread_mutex_init(&store->mutex, NULL);
    pthread_cond_init(&store->changed, NULL);
    if (!snapshot_load(&store->present, sources, workers, error)) {
        model_store_close(store);
        return false;
    }
    if (pthread_create(&store->loader, NULL, load_and_fill, store) != 0) {
        model_store_close(store);
        return error_set(error, "can't start the loader's thread");
    }
    store->started = true;
    *out = store;
    return true;
}

void model_store_stop(model_store *store) {
    if (!store) {
        return;
    }
    pthread_mutex_lock(&store->mutex);
    store->closing = true;
    pthread_cond_signal(&store->changed);
    pthread_mutex_unlock(&store->mutex);
    if (store->started) {
        pthread_join(store->loader, NULL);
        store->started = false;
    }
}

void model_store_close(model_store *store) {
    if (!store) {
        return;
    }
    model_store_stop(store);
    snapshot_release(store->present);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->mutex);
    free(store);
}
