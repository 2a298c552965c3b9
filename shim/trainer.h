// A training in progress, for trainer.cpp (one) and trainer_group.cpp (many at once).
#pragma once

#include "backend.h"

struct rp_trainer {
    rp::TrainerSpec spec;
    std::shared_ptr<const rp::TrainingData> data;
    std::unique_ptr<rp::Backend> backend;
    std::string note; // the backend's
    std::string failure;
    int64_t step = 0;
    double epoch_loss_sum = 0;        // over the samples of the unfinished epoch, in target units^2
    std::vector<double> epoch_losses; // in returns^2
    bool failed = false;
};

namespace rp {

// Refuses a trainer that has failed, and steps < 1.
void check_runnable(const rp_trainer &trainer, int64_t steps);

// Trains at most `steps` more steps, but not past the end of the epoch.
void run(rp_trainer &trainer, int64_t steps);

// Adds the losses of the steps that follow trainer.step, which have been trained, and moves it on.
void count_steps(rp_trainer &trainer, const std::vector<float> &losses);

} // namespace rp
