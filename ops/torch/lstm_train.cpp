// rp::lstm_train_: schema, checks and Meta. It trains M independent models for a number of
// optimiser steps and changes their parameters and optimiser state in place.
#include "ops/torch/lstm_train.h"

#include <torch/library.h>

namespace rp_ops {

namespace {

void check_float(const at::Tensor &tensor, const char *name, at::IntArrayRef sizes,
                 at::Device device) {
    TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_contiguous() &&
                    tensor.device() == device && tensor.sizes() == sizes,
                "rp::lstm_train_: ", name, " must be contiguous float32 ", sizes, " on ", device,
                ", got ", tensor.scalar_type(), " ", tensor.sizes(), " on ", tensor.device());
}

} // namespace

LstmTrainSizes check_lstm_train(const LstmTrainTensors &t, int64_t first_step, int64_t steps,
                                int64_t batch, int64_t time_steps, int64_t hidden, int64_t layers,
                                double dropout) {
    TORCH_CHECK(t.parameters.dim() == 2 && t.features.dim() == 2,
                "rp::lstm_train_: parameters must be [M, P] and features [N, F]");
    TORCH_CHECK(first_step >= 0 && steps >= 0 && batch > 0 && time_steps > 0 && hidden > 0 &&
                    layers > 0 && dropout >= 0.0 && dropout < 1.0,
                "rp::lstm_train_: first_step ", first_step, ", steps ", steps, ", batch ", batch,
                ", time_steps ", time_steps, ", hidden ", hidden, ", layers ", layers,
                " or dropout ", dropout, " is out of range");
    LstmTrainSizes sizes = {};
    sizes.models = t.parameters.size(0);
    sizes.rows = t.features.size(0);
    sizes.features = t.features.size(1);
    sizes.parameters = hidden + 1;
    for (int64_t layer = 0; layer < layers; ++layer) {
        sizes.parameters += 4 * hidden * ((layer == 0 ? sizes.features : hidden) + hidden + 2);
    }
    const at::Device device = t.parameters.device();
    const int64_t m = sizes.models, p = sizes.parameters;
    check_float(t.parameters, "parameters", {m, p}, device);
    check_float(t.exp_avg, "exp_avg", {m, p}, device);
    check_float(t.exp_avg_sq, "exp_avg_sq", {m, p}, device);
    check_float(t.running_mean, "running_mean", {m, hidden}, device);
    check_float(t.running_var, "running_var", {m, hidden}, device);
    check_float(t.losses, "losses", {m, steps}, device);
    check_float(t.scale_state, "scale_state", {m, 3}, device);
    check_float(t.features, "features", {sizes.rows, sizes.features}, device);
    check_float(t.targets, "targets", {sizes.rows}, device);
    TORCH_CHECK(t.window_ends.dim() == 1 && t.window_ends.scalar_type() == at::kInt &&
                    t.window_ends.is_contiguous() && t.window_ends.device() == device,
                "rp::lstm_train_: window_ends must be contiguous int32 [W] on ", device);
    TORCH_CHECK(t.window_ranges.scalar_type() == at::kLong &&
                    t.window_ranges.sizes() == at::IntArrayRef({m, 2}) &&
                    t.seeds.scalar_type() == at::kLong && t.seeds.sizes() == at::IntArrayRef({m}) &&
                    t.learning_rates.scalar_type() == at::kDouble &&
                    t.learning_rates.sizes() == at::IntArrayRef({m}),
                "rp::lstm_train_: window_ranges must be int64 [M, 2] (first window, windows), "
                "seeds int64 [M] and learning_rates float64 [M]");
    return sizes;
}

void check_window_ranges(const at::Tensor &window_ranges, int64_t total, int64_t batch) {
    TORCH_CHECK(window_ranges.is_cpu(),
                "rp::lstm_train_: window_ranges, seeds and learning_rates must be on the CPU");
    const at::Tensor ranges = window_ranges.contiguous();
    const int64_t *range = ranges.const_data_ptr<int64_t>();
    for (int64_t model = 0; model < ranges.size(0); ++model) {
        const int64_t first = range[2 * model], windows = range[2 * model + 1];
        TORCH_CHECK(first >= 0 && windows >= 0 && first + windows <= total,
                    "rp::lstm_train_: model ", model, " has windows ", first, " to ",
                    first + windows, ", and there are ", total);
        TORCH_CHECK(windows > 1 && batch > 1, "rp::lstm_train_: model ", model, " has ", windows,
                    " windows in batches of ", batch,
                    "; expected more than 1 value per channel when training");
    }
}

namespace {

void lstm_train_meta(at::Tensor &parameters, at::Tensor &exp_avg, at::Tensor &exp_avg_sq,
                     at::Tensor &running_mean, at::Tensor &running_var, at::Tensor &losses,
                     at::Tensor &scale_state, const at::Tensor &features, const at::Tensor &targets,
                     const at::Tensor &window_ends, const at::Tensor &window_ranges,
                     const at::Tensor &seeds, const at::Tensor &learning_rates, int64_t first_step,
                     int64_t steps, int64_t batch, int64_t time_steps, int64_t hidden,
                     int64_t layers, double dropout, double, double, double, double, double, double,
                     c10::string_view) {
    check_lstm_train({parameters, exp_avg, exp_avg_sq, running_mean, running_var, losses,
                      scale_state, features, targets, window_ends, window_ranges, seeds,
                      learning_rates},
                     first_step, steps, batch, time_steps, hidden, layers, dropout);
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("lstm_train_(Tensor(a!) parameters, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
          "Tensor(d!) running_mean, Tensor(e!) running_var, Tensor(f!) losses, "
          "Tensor(g!) scale_state, Tensor features, Tensor targets, Tensor window_ends, "
          "Tensor window_ranges, Tensor seeds, Tensor learning_rates, int first_step, int steps, "
          "int batch, int time_steps, int hidden, int layers, float dropout, float momentum, "
          "float norm_eps, float negative_slope, float beta1, float beta2, float adam_eps, "
          "str precision) -> ()",
          {at::Tag::pt2_compliant_tag});
    m.def("lstm_train_unsupported(int features, int time_steps, int hidden, int layers, "
          "int batch, str precision) -> str");
}
TORCH_LIBRARY_IMPL(rp, Meta, m) {
    m.impl("lstm_train_", rp_ops::lstm_train_meta);
}
