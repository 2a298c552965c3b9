// The configuration gpu-fused: rp::lstm_train_, one persistent kernel for any number of steps of
// any number of models.
//
// Policy: a backend's state is a row of a group of models that train in the same launches; alone it
// is a group of one. What the kernel does not take is trained by gpu-graph, and note() says so.
#include <ATen/ATen.h>

#include <algorithm>
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

// One data set on the device.
struct DeviceData {
    at::Tensor features, targets, window_ends; // [N][F], [N], [W]
};

// Models that train in the same launches.
struct Group {
    at::Tensor parameters, exp_avg, exp_avg_sq;          // [M][P]
    at::Tensor running_mean, running_var;                // [M][H]
    at::Tensor scale_state;                              // [M][3]
    at::Tensor window_ranges, seeds, learning_rates;     // [M][2], [M], [M], on the host
    DeviceData data;                                     // of all models, one after another
    std::vector<std::shared_ptr<const DeviceData>> sets; // that `data` holds

    std::vector<at::Tensor *> state() {
        return {&parameters, &exp_avg, &exp_avg_sq, &running_mean, &running_var, &scale_state};
    }
};

class FusedBackend : public Backend {
  public:
    FusedBackend(const TrainerSpec &spec, const TrainingData &data, const std::string &precision);
    void load(const State &state) override;
    void store(State &state) override;
    void train(int64_t first_step, int64_t steps, float *losses) override {
        train_group({this}, first_step, steps, losses);
    }
    int64_t peak_memory() const override { return gpu_peak_memory(); }
    int64_t skipped_steps() const override { return skipped_steps_; }
    std::string precision() const override { return precision_; }

    // Trains the members, which agree in all that the kernel knows once; losses [M][steps].
    static void train_group(const std::vector<FusedBackend *> &members, int64_t first_step,
                            int64_t steps, float *losses);

  private:
    static std::shared_ptr<Group> join(const std::vector<FusedBackend *> &members);

    TrainerSpec spec_;
    std::string precision_;
    std::shared_ptr<const DeviceData> data_; // shared by the trainers of this data
    std::shared_ptr<Group> group_;
    int64_t place_ = 0; // this model's row
    int64_t skipped_steps_ = 0;
};

std::shared_ptr<const DeviceData> on_device(const TrainingData &data, int64_t features) {
    if (!data.device) {
        const auto upload = [](const void *values, at::IntArrayRef shape, at::ScalarType type) {
            return at::from_blob(const_cast<void *>(values), shape, at::TensorOptions().dtype(type))
                .to(at::Device(at::kCUDA, 0));
        };
        data.device = std::make_shared<DeviceData>(
            DeviceData{upload(data.features, {data.rows, features}, at::kFloat),
                       upload(data.targets.data(), {data.rows}, at::kFloat),
                       upload(data.window_ends, {data.windows}, at::kInt)});
    }
    return std::static_pointer_cast<const DeviceData>(data.device);
}

FusedBackend::FusedBackend(const TrainerSpec &spec, const TrainingData &data,
                           const std::string &precision)
    : spec_(spec), precision_(precision), data_(on_device(data, spec.model.features)),
      group_(std::make_shared<Group>()) {
    const auto floats = data_->features.options();
    const int64_t count = parameter_count(model_parameters(spec.model));
    for (at::Tensor *flat : {&group_->parameters, &group_->exp_avg, &group_->exp_avg_sq}) {
        *flat = at::zeros({1, count}, floats);
    }
    group_->running_mean = at::zeros({1, spec.model.hidden}, floats);
    group_->running_var = at::ones({1, spec.model.hidden}, floats);
    group_->scale_state = at::zeros({1, 3}, floats);
}

void FusedBackend::load(const State &state) {
    auto put = [this](at::Tensor &tensor, const std::vector<float> &values) {
        at::Tensor row = tensor[place_];
        row.copy_(at::from_blob(const_cast<float *>(values.data()), row.sizes(), at::kFloat));
    };
    put(group_->parameters, state.parameters);
    put(group_->exp_avg, state.exp_avg);
    put(group_->exp_avg_sq, state.exp_avg_sq);
    put(group_->running_mean, state.running_mean);
    put(group_->running_var, state.running_var);
    put(group_->scale_state, {state.loss_scale, static_cast<float>(state.good_steps),
                              static_cast<float>(state.skipped_steps)});
    skipped_steps_ = state.skipped_steps;
}

void FusedBackend::store(State &state) {
    auto get = [this](const at::Tensor &tensor, std::vector<float> &values) {
        const at::Tensor host = tensor[place_].cpu();
        const float *first = host.const_data_ptr<float>();
        values.assign(first, first + host.numel());
    };
    get(group_->parameters, state.parameters);
    get(group_->exp_avg, state.exp_avg);
    get(group_->exp_avg_sq, state.exp_avg_sq);
    get(group_->running_mean, state.running_mean);
    get(group_->running_var, state.running_var);
    std::vector<float> scale;
    get(group_->scale_state, scale);
    state.loss_scale = scale[0];
    state.good_steps = static_cast<int64_t>(scale[1]);
    state.skipped_steps = static_cast<int64_t>(scale[2]);
}

// The members' group; where their last one was another, their rows are copied into a new one.
std::shared_ptr<Group> FusedBackend::join(const std::vector<FusedBackend *> &members) {
    const std::shared_ptr<Group> last = members[0]->group_;
    bool same = last->window_ranges.defined() &&
                last->window_ranges.size(0) == static_cast<int64_t>(members.size());
    for (size_t m = 0; same && m < members.size(); ++m) {
        same = members[m]->group_ == last && members[m]->place_ == static_cast<int64_t>(m);
    }
    if (same) {
        return last;
    }
    auto group = std::make_shared<Group>();
    for (size_t tensor = 0; tensor < group->state().size(); ++tensor) {
        std::vector<at::Tensor> rows;
        for (const FusedBackend *member : members) {
            rows.push_back(member->group_->state()[tensor]->narrow(0, member->place_, 1));
        }
        *group->state()[tensor] = at::cat(rows);
    }
    std::vector<at::Tensor> features, targets, ends;
    std::vector<int64_t> ranges, seeds, first_window;
    std::vector<double> rates;
    int64_t rows = 0, windows = 0;
    for (const FusedBackend *member : members) {
        const auto &set = member->data_;
        const size_t known = static_cast<size_t>(
            std::find(group->sets.begin(), group->sets.end(), set) - group->sets.begin());
        if (known == group->sets.size()) {
            group->sets.push_back(set);
            features.push_back(set->features);
            targets.push_back(set->targets);
            ends.push_back(rows == 0 ? set->window_ends : set->window_ends + rows);
            first_window.push_back(windows);
            rows += set->features.size(0);
            windows += set->window_ends.size(0);
        }
        ranges.insert(ranges.end(), {first_window[known], set->window_ends.size(0)});
        seeds.push_back(static_cast<int64_t>(member->spec_.seed));
        rates.push_back(member->spec_.learning_rate);
    }
    if (rows > INT32_MAX) {
        throw error(RP_ERROR_ARGUMENT,
                    "the data sets of %zu models have %lld rows together; at most 2^31 - 1 can "
                    "train in one launch: give fewer at once",
                    members.size(), static_cast<long long>(rows));
    }
    const bool one = group->sets.size() == 1; // needs no copy
    group->data =
        one ? *group->sets[0] : DeviceData{at::cat(features), at::cat(targets), at::cat(ends)};
    group->window_ranges = at::tensor(ranges, at::kLong).view({-1, 2});
    group->seeds = at::tensor(seeds, at::kLong);
    group->learning_rates = at::tensor(rates, at::kDouble);
    for (size_t m = 0; m < members.size(); ++m) {
        members[m]->group_ = group;
        members[m]->place_ = static_cast<int64_t>(m);
    }
    return group;
}

void FusedBackend::train_group(const std::vector<FusedBackend *> &members, int64_t first_step,
                               int64_t steps, float *losses) {
    const std::shared_ptr<Group> group = join(members);
    const FusedBackend &any = *members[0];
    const rp_model_options &model = any.spec_.model;
    at::Tensor device_losses =
        at::empty({static_cast<int64_t>(members.size()), steps}, group->parameters.options());
    lstm_train(group->parameters, group->exp_avg, group->exp_avg_sq, group->running_mean,
               group->running_var, device_losses, group->scale_state, group->data.features,
               group->data.targets, group->data.window_ends, group->window_ranges, group->seeds,
               group->learning_rates, first_step, steps, any.spec_.batch, model.time_steps,
               model.hidden, model.layers, model.dropout, model.norm_momentum, model.norm_eps,
               model.negative_slope, any.spec_.beta1, any.spec_.beta2, any.spec_.eps,
               any.precision_);
    const at::Tensor host = device_losses.cpu(); // waits for the device
    std::memcpy(losses, host.const_data_ptr<float>(),
                static_cast<size_t>(host.numel()) * sizeof(float));
    const at::Tensor scale = group->scale_state.cpu();
    for (size_t m = 0; m < members.size(); ++m) {
        members[m]->skipped_steps_ = static_cast<int64_t>(scale.const_data_ptr<float>()[3 * m + 2]);
    }
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

bool train_fused_together(const std::vector<Backend *> &backends, int64_t first_step, int64_t steps,
                          float *losses) {
    std::vector<FusedBackend *> members;
    for (Backend *backend : backends) {
        members.push_back(dynamic_cast<FusedBackend *>(backend));
        if (!members.back()) {
            return false;
        }
    }
    FusedBackend::train_group(members, first_step, steps, losses);
    return true;
}

} // namespace rp
