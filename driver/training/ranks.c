#define _POSIX_C_SOURCE 200809L
#include "training/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"

/* A whole number from the environment; `absent` where the variable is not set. */
static bool read_number(int32_t *out, const char *name, int32_t absent, int32_t least, int32_t most,
                        error *error) {
    const char *value = getenv(name);
    int64_t number = absent;
    if (value && value[0] && (!parse_int64(value, &number) || number < least || number > most)) {
        return error_set(error, "the environment's %s is \"%s\"; expected a number from %d to %d",
                         name, value, least, most);
    }
    *out = (int32_t)number;
    return true;
}

/* The local_rank-th of the GPUs that this process may see. */
static bool take_gpu(const ranks *ranks, error *error) {
    char device[64];
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    snprintf(device, sizeof device, "%d", ranks->local_rank);
    for (int32_t i = 0; visible && visible[0] && i <= ranks->local_rank; i++) {
        const size_t length = strcspn(visible, ",");
        if (i == ranks->local_rank) {
            snprintf(device, sizeof device, "%.*s", (int)length, visible);
        }
        visible += length + (visible[length] == ',');
    }
    return setenv("CUDA_VISIBLE_DEVICES", device, 1) == 0 ||
           error_set(error, "out of memory for CUDA_VISIBLE_DEVICES");
}

bool ranks_join(ranks *out, int64_t silence_seconds, error *error) {
    *out = (ranks){.count = 1, .local_count = 1};
    rp_ranks_options options;
    rp_ranks_options_init(&options);
    if (!read_number(&out->count, "WORLD_SIZE", 1, 1, 1 << 20, error) ||
        !read_number(&out->rank, "RANK", 0, 0, out->count - 1, error) ||
        !read_number(&out->local_count, "LOCAL_WORLD_SIZE", 1, 1, out->count, error) ||
        !read_number(&out->local_rank, "LOCAL_RANK", 0, 0, out->local_count - 1, error) ||
        !read_number(&options.port, "MASTER_PORT", options.port, 1, 65535, error)) {
        return false;
    }
    if (out->count == 1) {
        return true;
    }
    if (out->local_count > 1 && !take_gpu(out, error)) {
        return false;
    }
    options.rank = out->rank;
    options.count = out->count;
    options.silence_seconds = (int32_t)silence_seconds;
    options.address = getenv("MASTER_ADDR") ? getenv("MASTER_ADDR") : options.address;
    /* torchrun's agent holds the store, and on one machine keeps it from restart to restart. */
    const char *hosted = getenv("TORCHELASTIC_USE_AGENT_STORE");
    const char *restart = getenv("TORCHELASTIC_RESTART_COUNT");
    const char *machines = getenv("GROUP_WORLD_SIZE");
    options.hosted = hosted && strcmp(hosted, "True") == 0;
    options.group = restart && machines && strcmp(machines, "1") == 0 ? restart : "";
    return rp_ranks_create(&out->handle, &options) == RP_OK ||
           error_set(error, "rank %d of %d: %s", out->rank, out->count, rp_last_error());
}

void ranks_leave(ranks *ranks) {
    rp_ranks_free(ranks->handle);
    ranks->handle = NULL;
}

/* The shim's answer to this rank. */
static bool answered(rp_status status, const ranks *ranks, error *error) {
    return status == RP_OK ||
           error_set(error, "rank %d of %d: %s", ranks->rank, ranks->count, rp_last_error());
}

bool ranks_add(int64_t *value, ranks *ranks, const char *counter, int64_t amount, error *error) {
    if (!ranks->handle) {
        *value += amount;
        return true;
    }
    return answered(rp_ranks_add(value, ranks->handle, counter, amount), ranks, error);
}

bool ranks_check(ranks *ranks, error *error) {
    return !ranks->handle || answered(rp_ranks_check(ranks->handle), ranks, error);
}

bool ranks_wait(ranks *ranks, const char *place, error *error) {
    return !ranks->handle || answered(rp_ranks_wait(ranks->handle, place), ranks, error);
}

int32_t ranks_threads(const ranks *ranks, int32_t asked) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (asked > 0 || ranks->local_count == 1) {
        return asked;
    }
    return cores > ranks->local_count ? (int32_t)cores / ranks->local_count : 1;
}
