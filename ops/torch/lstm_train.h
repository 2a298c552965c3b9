// What the implementations of rp::lstm_train_ share.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

namespace rp_ops {

// The sizes of one call, checked against its tensors.
struct LstmTrainSizes {
    int64_t models, features, parameters, rows;
};

// Tensors of rp::lstm_train_ in the schema's order.
struct LstmTrainTensors {
    at::Tensor &parameters, &exp_avg, &exp_avg_sq, &running_mean, &running_var, &losses,
        &scale_state;
    const at::Tensor &features, &targets, &window_ends;
    const at::Tensor &window_ranges, &seeds, &learning_rates; // on the CPU
};

LstmTrainSizes check_lstm_train(const LstmTrainTensors &tensors, int64_t first_step, int64_t steps,
                                int64_t batch, int64_t time_steps, int64_t hidden, int64_t layers,
                                double dropout);

// Ranges lie in the `total` windows. A batch of one row has no variance: refused, as torch does (but
// a last batch of one is left out of the epoch: random.h).
void check_window_ranges(const at::Tensor &window_ranges, int64_t total, int64_t batch);

} // namespace rp_ops
