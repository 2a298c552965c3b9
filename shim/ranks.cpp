// Ranks, seen from C: the work is librp_torch.so's.
#include "ranks.h"

#include <cstring>

#include "guard.h"
#include "torch_plugin.h"

void rp_ranks_options_init(rp_ranks_options *options) {
    if (options) {
        *options = {};
        options->version = RP_OPTIONS_VERSION;
        options->count = 1;
        options->address = "127.0.0.1";
        options->port = 29500;
        options->group = "";
        options->silence_seconds = 15;
        options->arrival_seconds = 300;
    }
}

rp_status rp_ranks_create(rp_ranks **ranks, const rp_ranks_options *options) {
    return rp::guard([&] {
        rp::require(ranks, "ranks");
        *ranks = nullptr;
        rp::require(options, "options");
        rp::require(options->address, "address");
        rp::require(options->group, "group");
        if (options->version != RP_OPTIONS_VERSION) {
            throw rp::error(RP_ERROR_ARGUMENT, "ranks options have version %u, expected %d",
                            options->version, RP_OPTIONS_VERSION);
        }
        if (options->count < 1 || options->rank < 0 || options->rank >= options->count ||
            options->port < 1 || options->port > 65535 || options->silence_seconds < 1 ||
            options->arrival_seconds < 1) {
            throw rp::error(
                RP_ERROR_ARGUMENT,
                "rank %d of %d at port %d, silence %d s or arrival %d s is out of range",
                options->rank, options->count, options->port, options->silence_seconds,
                options->arrival_seconds);
        }
        auto made = std::make_unique<rp_ranks>();
        made->ranks = rp::torch_plugin().make_ranks(*options);
        *ranks = made.release();
    });
}

void rp_ranks_free(rp_ranks *ranks) {
    delete ranks;
}

rp_status rp_ranks_add(int64_t *value, rp_ranks *ranks, const char *counter, int64_t amount) {
    return rp::guard([&] {
        rp::require(value, "value");
        rp::require(ranks, "ranks");
        rp::require(counter, "counter");
        *value = ranks->ranks->add(counter, amount);
    });
}

rp_status rp_ranks_check(rp_ranks *ranks) {
    return rp::guard([&] {
        rp::require(ranks, "ranks");
        ranks->ranks->check();
    });
}

rp_status rp_ranks_wait(rp_ranks *ranks, const char *place) {
    return rp::guard([&] {
        rp::require(ranks, "ranks");
        rp::require(place, "place");
        ranks->ranks->wait(place);
    });
}
