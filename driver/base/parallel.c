#define _POSIX_C_SOURCE 200809L
#include "base/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

typedef struct work {
    atomic_int_least64_t next;
    int64_t count;
    void (*body)(int64_t index, void *context);
    void *context;
} work;

static void *run(void *argument) {
    work *work = argument;
    for (int64_t index; (index = atomic_fetch_add(&work->next, 1)) < work->count;)
        work->body(index, work->context);
    return NULL;
}

void parallel_for(int64_t count, void (*body)(int64_t index, void *context), void *context) {
    work work = {.count = count, .body = body, .context = context};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int64_t threads = cores < 1 ? 1 : cores > MOST_THREADS ? MOST_THREADS : cores;
    pthread_t thread[MOST_THREADS];
    int started = 0;
    /* One less than the cores: the caller works too. A thread that can't be started is not missed.
     */
    for (int64_t i = 1; i < threads && i < count; ++i)
        if (pthread_create(&thread[started], NULL, run, &work) == 0)
            ++started;
    run(&work);
    for (int i = 0; i < started; ++i)
        pthread_join(thread[i], NULL);
}
