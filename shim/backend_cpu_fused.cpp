// The configuration cpu-fused: the project's own training step on the CPU, without libtorch.
#include <sys/resource.h>

#include "backends.h"
#include "guard.h"
#include "kernels/lstm_cpu_train.h"

namespace rp {
namespace {

LstmCpuTrainOptions train_options(const TrainerSpec &spec) {
    const rp_model_options &model = spec.model;
    return {{model.features, model.time_steps, model.hidden, model.layers},
            model.dropout,
            model.norm_momentum,
            model.norm_eps,
            model.negative_slope,
            spec.learning_rate,
            spec.beta1,
            spec.beta2,
            spec.eps,
            spec.batch,
            spec.seed,
            spec.threads};
}

class CpuFusedBackend : public Backend {
  public:
    CpuFusedBackend(const TrainerSpec &spec, const TrainingData &data)
        : trainer_(train_options(spec),
                   {data.features, data.targets.data(), data.window_ends, data.windows}) {}

    void load(const State &state) override { state_ = state; }
    void store(State &state) override { state = state_; }

    void train(int64_t first_step, int64_t steps, float *losses) override {
        trainer_.train({state_.parameters.data(), state_.exp_avg.data(), state_.exp_avg_sq.data(),
                        state_.running_mean.data(), state_.running_var.data()},
                       first_step, steps, losses);
        state_.step = first_step + steps;
    }

    int64_t peak_memory() const override {
        rusage usage{};
        return getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{usage.ru_maxrss} * 1024 : 0;
    }
    std::string precision() const override { return "fp32"; }

  private:
    LstmCpuTrainer trainer_;
    State state_;
};

} // namespace

std::unique_ptr<Backend> make_cpu_fused_backend(const TrainerSpec &spec, const TrainingData &data) {
    if (!spec.precision.empty() && spec.precision != "fp32") {
        throw error(RP_ERROR_ARGUMENT,
                    "configuration cpu-fused has no precision %s; it has fp32 "
                    "only",
                    spec.precision.c_str());
    }
    return std::make_unique<CpuFusedBackend>(spec, data);
}

} // namespace rp
