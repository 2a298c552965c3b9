// What trains a model: the interface between the trainer (no torch) and its configurations.
//
// Policy: a backend holds the device's copy of the state and nothing else. Which samples a step
// trains, its dropout mask and the initial weights are functions of (seed, step) in
// ops/kernels/random.h, so `State` is all that a checkpoint needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rp/rp.h"

namespace rp {

// Everything that changes during training, on the host. Parameters are concatenated in PyTorch's
// order (see model.h); head parameters are in units of TrainerSpec::target_unit.
struct State {
    std::vector<float> parameters;   // [P]
    std::vector<float> exp_avg;      // [P] Adam's first moment
    std::vector<float> exp_avg_sq;   // [P] Adam's second moment
    std::vector<float> running_mean; // [H]
    std::vector<float> running_var;  // [H], unbiased
    int64_t step = 0;                // optimiser steps done
    float loss_scale = 0;            // fp16 only; 0: the backend's first value
    int64_t good_steps = 0;          // since the loss scale last changed
    int64_t skipped_steps = 0;
};

class Ranks;

struct TrainerSpec {
    rp_model_options model;
    std::string configuration;
    std::string precision; // "" = the configuration's default
    int64_t batch;
    double learning_rate, beta1, beta2, eps;
    uint64_t seed;
    int32_t threads; // resolved: at least 1
    Ranks *ranks;    // that share each batch; nullptr: alone
};

// What trainers of the same data share. The arrays are borrowed from the caller, but for `targets`.
struct TrainingData {
    const float *features;      // [N][F]
    const int32_t *window_ends; // [W]
    int64_t rows, windows;
    double target_unit;
    std::vector<float> targets;           // [N] in target units
    mutable std::shared_ptr<void> device; // a backend's copy on its device
};

class Backend {
  public:
    virtual ~Backend() = default;
    virtual void load(const State &state) = 0;
    virtual void store(State &state) = 0;
    // Runs optimiser steps [first_step, first_step + steps), all in one epoch, waits for them and
    // writes the mean loss of each step's batch to losses [steps].
    virtual void train(int64_t first_step, int64_t steps, float *losses) = 0;
    virtual int64_t peak_memory() const = 0;            // bytes
    virtual int64_t skipped_steps() const { return 0; } // overflows so far
    // The precision in use ("fp32", "tf32", ...) and, when the backend fell back to another
    // configuration, one line that says so; "" otherwise.
    virtual std::string precision() const = 0;
    virtual std::string note() const { return ""; }
};

// Errors travel inside the shim as exceptions of this type; guard.h turns them into rp_status.
struct Error {
    rp_status status;
    std::string message;
};

} // namespace rp
