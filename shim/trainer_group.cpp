// Many trainers at once: side by side on the cores of the CPU, or in the same launches of the GPU.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "guard.h"
#include "torch_plugin.h"
#include "trainer.h"

namespace rp {
namespace {

int64_t cores(int32_t threads) {
    return threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
}

// Runs body, which trains `trainer`; a failure is the trainer's own.
template <typename Body> void attempt(rp_trainer &trainer, Body &&body) {
    if (guard(body) != RP_OK) {
        trainer.failed = true;
        trainer.failure = rp_last_error();
    }
}

void run_alone(rp_trainer &trainer, int64_t steps) {
    attempt(trainer, [&] {
        for (const int64_t last = trainer.step + steps; trainer.step < last;) {
            run(trainer, last - trainer.step);
        }
    });
}

void run_on_cores(const std::vector<rp_trainer *> &trainers, int64_t steps, int32_t threads) {
    const auto wanted = std::min(trainers.size(), static_cast<size_t>(cores(threads)));
    std::atomic<size_t> next{0};
    const auto work = [&] {
        for (size_t i; (i = next++) < trainers.size();) {
            run_alone(*trainers[i], steps);
        }
    };
    std::vector<std::thread> others;
    try {
        while (others.size() + 1 < wanted) {
            others.emplace_back(work);
        }
    } catch (const std::system_error &) { // those that started do the work
    }
    work();
    for (std::thread &other : others) {
        other.join();
    }
}

// Whether one launch can take a step of both: everything that the kernel knows once, not by model.
bool same_launch(const rp_trainer &a, const rp_trainer &b) {
    return a.step == b.step && a.spec.batch == b.spec.batch && a.spec.beta1 == b.spec.beta1 &&
           a.spec.beta2 == b.spec.beta2 && a.spec.eps == b.spec.eps &&
           a.spec.precision == b.spec.precision &&
           std::memcmp(&a.spec.model, &b.spec.model, sizeof a.spec.model) == 0;
}

// False when the backends can't: nothing has been trained then.
bool run_in_one_launch(const std::vector<rp_trainer *> &trainers, int64_t steps) {
    std::vector<Backend *> backends;
    for (rp_trainer *trainer : trainers) {
        backends.push_back(trainer->backend.get());
    }
    std::vector<float> losses(trainers.size() * static_cast<size_t>(steps));
    if (!torch_plugin().train_together(backends, trainers[0]->step, steps, losses.data())) {
        return false;
    }
    for (size_t i = 0; i < trainers.size(); ++i) {
        const auto first = losses.begin() + static_cast<int64_t>(i) * steps;
        attempt(*trainers[i], [&] { count_steps(*trainers[i], {first, first + steps}); });
    }
    return true;
}

void run_in_launches(std::vector<rp_trainer *> left, int64_t steps) {
    while (!left.empty()) {
        const auto rest = std::stable_partition(left.begin(), left.end(), [&](rp_trainer *other) {
            return same_launch(*left[0], *other);
        });
        const std::vector<rp_trainer *> group(left.begin(), rest);
        left.erase(left.begin(), rest);
        bool together = true;
        const rp_status status = guard([&] { together = run_in_one_launch(group, steps); });
        for (rp_trainer *trainer : group) {
            if (status != RP_OK) {
                attempt(*trainer, [&] { throw error(status, "%s", rp_last_error()); });
            } else if (!together) {
                run_alone(*trainer, steps);
            }
        }
    }
}

} // namespace
} // namespace rp

rp_status rp_trainers_run(rp_trainer *const *trainers, int64_t count, int64_t steps,
                          int32_t threads) {
    return rp::guard([&] {
        rp::require(trainers, "trainers");
        std::vector<rp_trainer *> cores, launches, alone;
        for (int64_t i = 0; i < count; ++i) {
            rp::require(trainers[i], "a trainer");
            if (!trainers[i]->failure.empty()) {
                continue;
            }
            rp::check_runnable(*trainers[i], steps);
            const std::string &name = trainers[i]->spec.configuration;
            (name == "cpu-fused"   ? cores
             : name == "gpu-fused" ? launches
                                   : alone)
                .push_back(trainers[i]);
        }
        rp::run_on_cores(cores, steps, threads);
        rp::run_in_launches(launches, steps);
        for (rp_trainer *trainer : alone) {
            rp::run_alone(*trainer, steps);
        }
    });
}

const char *rp_trainer_failure(const rp_trainer *trainer) {
    return trainer ? trainer->failure.c_str() : "";
}

rp_status rp_trainers_at_once(int64_t *count, const rp_trainer_options *options) {
    return rp::guard([&] {
        rp::require(count, "count");
        rp::require(options, "options");
        rp::require(options->configuration, "configuration");
        const std::string name = options->configuration;
        *count = name == "cpu-fused"   ? rp::cores(options->threads)
                 : name == "gpu-fused" ? rp::torch_plugin().multiprocessors()
                                       : 1;
    });
}
