// Training on the CPU: whole optimiser steps of the model (gather, forward with dropout, BatchNorm
// by batch statistics, LeakyReLU, Linear, mean squared error, backward, Adam, running statistics).
// Needs no torch.
//
// Policy: a batch is cut in slices of consecutive rows and these in a fixed number of groups; a
// group's gradients are added in order and the groups in order. So the bits depend on the
// instruction set and not on the number of threads. Order of samples and dropout: random.h.
#pragma once

#include "kernels/lstm_cpu.h"

namespace rp {

struct LstmCpuTrainOptions {
    LstmCpuShape shape;
    float dropout, norm_momentum, norm_eps, negative_slope;
    double learning_rate, beta1, beta2, eps;
    int64_t batch; // at least 2
    uint64_t seed;
    int32_t threads; // at least 1
};

// Borrowed for the trainer's life.
struct LstmCpuTrainData {
    const float *features;      // [N][F]
    const float *targets;       // [N], read at window ends
    const int32_t *window_ends; // [W], each in [T-1, N)
    int64_t windows;            // W, at least 2
};

// Borrowed for one call and changed in place. Parameters in PyTorch's order, see LstmCpu.
struct LstmCpuTrainState {
    float *parameters, *exp_avg, *exp_avg_sq; // [P]
    float *running_mean, *running_var;        // [H], the variance unbiased
};

class LstmCpuTrainer {
  public:
    LstmCpuTrainer(const LstmCpuTrainOptions &options, const LstmCpuTrainData &data,
                   LstmCpuIsa isa = lstm_cpu_best_isa());
    ~LstmCpuTrainer();

    // Optimiser steps [first_step, first_step + steps), counted from the start of training;
    // losses [steps] = mean squared error of each step's batch before its update.
    void train(const LstmCpuTrainState &state, int64_t first_step, int64_t steps, float *losses);

    const float *gradient() const; // [P], of the last step

  private:
    class Run;
    std::unique_ptr<Run> run_;
};

} // namespace rp
