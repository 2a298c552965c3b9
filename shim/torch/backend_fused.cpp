// The configuration gpu-fused: rp::lstm_train_, one persistent kernel for any number of steps.
//
// Policy: what the kernel does not take is trained by gpu-graph, and note() says so.
#include <ATen/ATen.h>

#include <cstring>

#include "backends.h"
#include "guard.h"
#include "model.h"
#include "torch/device.h"
#include "torch/operators.h"

#ifdef RP_HAVE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace rp {
namespace {

class FusedBackend : public Backend {
  public:
    FusedBackend(const TrainerSpec &spec, const TrainingData &data, const std::string &precision);
    void load(const State &state) override;
    void store(State &state) override;
    void train(int64_t first_step, int64_t steps, float *losses) override;
    int64_t peak_memory() const override { return gpu_peak_memory(); }
    int64_t skipped_steps() const override { return skipped_steps_; }
    std::string precision() const override { return precision_; }

  private:
    TrainerSpec spec_;
    std::string precision_;
    at::Tensor features_, targets_, window_ends_;       // [N][F], [N], [W]
    at::Tensor window_ranges_, seeds_, learning_rates_; // of one model, on the host
    at::Tensor parameters_, exp_avg_, exp_avg_sq_;      // [1][P]
    at::Tensor running_mean_, running_var_;             // [1][H]
    at::Tensor scale_state_;                            // [1][3]
    int64_t skipped_steps_ = 0;
};

FusedBackend::FusedBackend(const TrainerSpec &spec, const TrainingData &data,
                           const std::string &precision)
    : spec_(spec), precision_(precision) {
    const at::Device device(at::kCUDA, 0);
    auto upload = [device](const void *values, at::IntArrayRef shape, at::ScalarType type) {
        return at::from_blob(const_cast<void *>(values), shape, at::TensorOptions().dtype(type))
            .to(device);
    };
    features_ = upload(data.features, {data.rows, spec.model.features}, at::kFloat);
    targets_ = upload(data.targets, {data.rows}, at::kFloat);
    window_ends_ = upload(data.window_ends, {data.windows}, at::kInt);
    window_ranges_ = at::tensor({int64_t{0}, data.windows}, at::kLong).view({1, 2});
    seeds_ = at::tensor({static_cast<int64_t>(spec.seed)}, at::kLong);
    learning_rates_ = at::tensor({spec.learning_rate}, at::kDouble);
    const auto floats = at::TensorOptions().dtype(at::kFloat).device(device);
    const int64_t count = parameter_count(model_parameters(spec.model));
    for (at::Tensor *flat : {&parameters_, &exp_avg_, &exp_avg_sq_}) {
        *flat = at::zeros({1, count}, floats);
    }
    running_mean_ = at::zeros({1, spec.model.hidden}, floats);
    running_var_ = at::ones({1, spec.model.hidden}, floats);
    scale_state_ = at::zeros({1, 3}, floats);
}

void FusedBackend::load(const State &state) {
    auto put = [](at::Tensor &tensor, const std::vector<float> &values) {
        tensor.copy_(at::from_blob(const_cast<float *>(values.data()), tensor.sizes(), at::kFloat));
    };
    put(parameters_, state.parameters);
    put(exp_avg_, state.exp_avg);
    put(exp_avg_sq_, state.exp_avg_sq);
    put(running_mean_, state.running_mean);
    put(running_var_, state.running_var);
    put(scale_state_, {state.loss_scale, static_cast<float>(state.good_steps),
                       static_cast<float>(state.skipped_steps)});
    skipped_steps_ = state.skipped_steps;
}

void FusedBackend::store(State &state) {
    auto get = [](const at::Tensor &tensor, std::vector<float> &values) {
        const at::Tensor host = tensor.cpu();
        const float *first = host.const_data_ptr<float>();
        values.assign(first, first + host.numel());
    };
    get(parameters_, state.parameters);
    get(exp_avg_, state.exp_avg);
    get(exp_avg_sq_, state.exp_avg_sq);
    get(running_mean_, state.running_mean);
    get(running_var_, state.running_var);
    std::vector<float> scale;
    get(scale_state_, scale);
    state.loss_scale = scale[0];
    state.good_steps = static_cast<int64_t>(scale[1]);
    state.skipped_steps = static_cast<int64_t>(scale[2]);
}

void FusedBackend::train(int64_t first_step, int64_t steps, float *losses) {
    at::Tensor device_losses = at::empty({1, steps}, parameters_.options());
    const rp_model_options &model = spec_.model;
    lstm_train(parameters_, exp_avg_, exp_avg_sq_, running_mean_, running_var_, device_losses,
               scale_state_, features_, targets_, window_ends_, window_ranges_, seeds_,
               learning_rates_, first_step, steps, spec_.batch, model.time_steps, model.hidden,
               model.layers, model.dropout, model.norm_momentum, model.norm_eps,
               model.negative_slope, spec_.beta1, spec_.beta2, spec_.eps, precision_);
    const at::Tensor host = device_losses.cpu(); // waits for the device
    std::memcpy(losses, host.const_data_ptr<float>(), static_cast<size_t>(steps) * sizeof(float));
    skipped_steps_ = static_cast<int64_t>(scale_state_[0][2].item<float>());
}

// gpu-graph in place of gpu-fused.
class FallbackBackend : public Backend {
  public:
    FallbackBackend(std::unique_ptr<Backend> inner, std::string note)
        : inner_(std::move(inner)), note_(std::move(note)) {}
    void load(const State &state) override { inner_->load(state); }
    void store(State &state) override { inner_->store(state); }
    void train(int64_t first_step, int64_t steps, float *losses) override {
        inner_->train(first_step, steps, losses);
    }
    int64_t peak_memory() const override { return inner_->peak_memory(); }
    int64_t skipped_steps() const override { return inner_->skipped_steps(); }
    std::string precision() const override { return inner_->precision(); }
    std::string note() const override { return note_; }

  private:
    std::unique_ptr<Backend> inner_;
    std::string note_;
};

// Why the kernel can't train this; "" when it can.
std::string unsupported(const TrainerSpec &spec, const std::string &precision) {
#ifdef RP_HAVE_CUDA
    int major = 0;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess) {
        throw error(RP_ERROR_DEVICE, "the GPU does not answer: %s",
                    cudaGetErrorString(cudaGetLastError()));
    }
    if (major != 9) {
        return "the training kernel is built for compute capability 9.0 (H100, H200)";
    }
#endif
    return lstm_train_unsupported(spec.model.features, spec.model.time_steps, spec.model.hidden,
                                  spec.model.layers, spec.batch, precision);
}

} // namespace

std::unique_ptr<Backend> make_fused_backend(const TrainerSpec &spec, const TrainingData &data) {
    const std::string precision = spec.precision.empty() ? "fp16" : spec.precision;
    const std::string reason = unsupported(spec, precision);
    if (reason.empty()) {
        return std::make_unique<FusedBackend>(spec, data, precision);
    }
    TrainerSpec graph = spec;
    graph.configuration = "gpu-graph";
    if (precision == "fp16" || precision == "bf16") {
        graph.precision = ""; // not among gpu-graph's
    }
    return std::make_unique<FallbackBackend>(make_torch_backend(graph, data),
                                             "gpu-graph trains instead of gpu-fused: " + reason);
}

} // namespace rp
