// rp::lstm_train_ on the CPU: the training step of ops/kernels/lstm_cpu_train.h, model by model.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/lstm_cpu_train.h"
#include "ops/torch/lstm_train.h"

namespace rp_ops {
namespace {

// The GPU kernel reads whatever an end names; on the CPU a look at each costs nothing.
void check_window_ends(const at::Tensor &window_ends, int64_t rows, int64_t time_steps) {
    const int32_t *ends = window_ends.const_data_ptr<int32_t>();
    for (int64_t w = 0; w < window_ends.size(0); ++w) {
        TORCH_CHECK(ends[w] >= time_steps - 1 && ends[w] < rows, "rp::lstm_train_: window ", w,
                    " ends at row ", ends[w], "; it must lie inside [", time_steps - 1, ", ", rows,
                    ")");
    }
}

void lstm_train_cpu(at::Tensor &parameters, at::Tensor &exp_avg, at::Tensor &exp_avg_sq,
                    at::Tensor &running_mean, at::Tensor &running_var, at::Tensor &losses,
                    at::Tensor &scale_state, const at::Tensor &features, const at::Tensor &targets,
                    const at::Tensor &window_ends, const at::Tensor &window_ranges,
                    const at::Tensor &seeds, const at::Tensor &learning_rates, int64_t first_step,
                    int64_t steps, int64_t batch, int64_t time_steps, int64_t hidden,
                    int64_t layers, double dropout, double momentum, double norm_eps,
                    double negative_slope, double beta1, double beta2, double adam_eps,
                    c10::string_view precision) {
    const LstmTrainSizes sizes = check_lstm_train(
        {parameters, exp_avg, exp_avg_sq, running_mean, running_var, losses, scale_state, features,
         targets, window_ends, window_ranges, seeds, learning_rates},
        first_step, steps, batch, time_steps, hidden, layers, dropout);
    check_window_ranges(window_ranges, window_ends.size(0), batch);
    check_window_ends(window_ends, sizes.rows, time_steps);
    TORCH_CHECK(precision == "fp32", "rp::lstm_train_: the CPU trains in fp32, got precision ",
                precision);
    TORCH_CHECK(sizes.features <= 32 && time_steps <= 64 && hidden <= 512 && layers <= 4,
                "rp::lstm_train_: the CPU kernel takes at most 32 features, 64 time steps, 512 "
                "hidden units and 4 layers, got ",
                sizes.features, ", ", time_steps, ", ", hidden, " and ", layers);
    const at::Tensor ranges = window_ranges.contiguous(), model_seeds = seeds.contiguous(),
                     rates = learning_rates.contiguous();
    for (int64_t model = 0; model < sizes.models && steps > 0; ++model) {
        const int64_t *range = ranges.const_data_ptr<int64_t>() + 2 * model;
        rp::LstmCpuTrainer trainer(
            {{static_cast<int32_t>(sizes.features), static_cast<int32_t>(time_steps),
              static_cast<int32_t>(hidden), static_cast<int32_t>(layers)},
             static_cast<float>(dropout),
             static_cast<float>(momentum),
             static_cast<float>(norm_eps),
             static_cast<float>(negative_slope),
             rates.const_data_ptr<double>()[model],
             beta1,
             beta2,
             adam_eps,
             batch,
             static_cast<uint64_t>(model_seeds.const_data_ptr<int64_t>()[model]),
             at::get_num_threads()},
            {features.const_data_ptr<float>(), targets.const_data_ptr<float>(),
             window_ends.const_data_ptr<int32_t>() + range[0], range[1]});
        const int64_t parameter = model * sizes.parameters, unit = model * hidden;
        trainer.train({parameters.mutable_data_ptr<float>() + parameter,
                       exp_avg.mutable_data_ptr<float>() + parameter,
                       exp_avg_sq.mutable_data_ptr<float>() + parameter,
                       running_mean.mutable_data_ptr<float>() + unit,
                       running_var.mutable_data_ptr<float>() + unit},
                      first_step, steps, losses.mutable_data_ptr<float>() + model * steps);
    }
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_IMPL(rp, CPU, m) {
    m.impl("lstm_train_", rp_ops::lstm_train_cpu);
}
