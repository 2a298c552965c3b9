// The configurations made of libtorch's operators: cpu, gpu, gpu-kernel, gpu-graph.
//
// Policy: one code path; they differ only in the device, in BatchNorm + LeakyReLU being one fused
// operator or two, and in the step being launched or replayed. Everything that changes from step to
// step (counter, sample order, dropout) is read from device tensors, so a captured step is the
// step.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstring>
#include <malloc.h>
#include <map>
#include <optional>
#include <sys/resource.h>

#include "backends.h"
#include "guard.h"
#include "model.h"
#include "rp_ops/bn_leaky_relu.h"
#include "torch/operators.h"
#include "torch/device.h"
#include "torch/step_graph.h"
#include "torch/store_ranks.h"

#ifdef RP_HAVE_CUDA
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace rp {
namespace {

constexpr int64_t cudnn_lstm_mode = 2; // cudnnRNNMode_t CUDNN_LSTM

// libtorch's Adam on the GPU gives one block of threads 65,536 elements of a tensor, the whole
// model: 44 us on an H100. Parts spread it over the chip.
constexpr int64_t adam_part = 2048;

class TorchBackend : public Backend {
  public:
    TorchBackend(const TrainerSpec &spec, const TrainingData &data);
    void load(const State &state) override;
    void store(State &state) override;
    void train(int64_t first_step, int64_t steps, float *losses) override;
    int64_t peak_memory() const override;
    std::string precision() const override { return precision_; }

  private:
    void set_precision();
    void make_parameters(const at::TensorOptions &floats);
    void warm_up();
    int64_t step_rows(int64_t step) const;
    void step(int64_t rows);
    // Rows of a batch that this process computes.
    struct Share {
        int64_t first, rows;
    };
    std::tuple<at::Tensor, at::Tensor> last_hidden(int64_t rows, Share share);
    at::Tensor head_loss(const at::Tensor &hidden, const at::Tensor &target);
    at::Tensor shared_gradients(int64_t rows);
    at::Tensor gradients(int64_t rows);
    at::Tensor lstm_layer(int32_t layer, const at::Tensor &input, bool last);
    at::Tensor norm_activation(const at::Tensor &input);
    const at::Tensor &initial_hidden(int64_t rows);

    TrainerSpec spec_;
    TensorRanks *ranks_; // nullptr: alone
    int64_t windows_, steps_per_epoch_;
    bool gpu_, fused_, graph_;
    std::string precision_;
    at::Tensor features_, targets_, window_ends_;         // [N][F], [N], [W]
    at::Tensor parameters_, exp_avg_, exp_avg_sq_, grad_; // [P]
    struct {                                              // of those, and adam_step_ for each
        std::vector<at::Tensor> parameters, grad, exp_avg, exp_avg_sq, steps;
    } parts_;
    std::vector<at::Tensor> leaves_;               // the model's parameters: views of parameters_
    std::vector<at::Tensor> layer_weights_;        // per layer, its slice of parameters_
    at::Tensor running_mean_, running_var_;        // [H]
    at::Tensor adam_step_;                         // float scalar
    at::Tensor counters_;                          // int64 [2]: step, place in losses_
    at::Tensor step_, place_;                      // views of counters_: scalar, [1]
    at::Tensor losses_;                            // [steps_per_epoch]
    std::map<int64_t, at::Tensor> initial_hidden_; // zeros [1][B][H], by B
#ifdef RP_HAVE_CUDA
    std::optional<c10::cuda::CUDAStream> stream_;
    std::map<int64_t, std::unique_ptr<StepGraph>> graphs_; // by B
#endif
};

// A step's tensors are as large as the last one's, oneDNN's 40 MB among them: glibc would give
// their pages back and fault them in again each step, a third of a CPU step.
void keep_freed_memory() {
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

TorchBackend::TorchBackend(const TrainerSpec &spec, const TrainingData &data)
    : spec_(spec), ranks_(static_cast<TensorRanks *>(spec.ranks)), windows_(data.windows),
      gpu_(spec.configuration != "cpu"),
      fused_(spec.configuration == "gpu-kernel" || spec.configuration == "gpu-graph"),
      graph_(spec.configuration == "gpu-graph") {
    steps_per_epoch_ = windows_ / spec.batch + (windows_ % spec.batch >= 2 ? 1 : 0);
    set_precision();
    at::set_num_threads(spec.threads);
    const auto device = gpu_ ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    auto upload = [device](const void *values, at::IntArrayRef shape, at::ScalarType type) {
        return at::from_blob(const_cast<void *>(values), shape, at::TensorOptions().dtype(type))
            .to(device, type, /*non_blocking=*/false, /*copy=*/true);
    };
    features_ = upload(data.features, {data.rows, spec.model.features}, at::kFloat);
    targets_ = upload(data.targets.data(), {data.rows}, at::kFloat);
    window_ends_ = upload(data.window_ends, {data.windows}, at::kInt);
    make_parameters(at::TensorOptions().dtype(at::kFloat).device(device));
    if (gpu_) {
        warm_up();
    } else {
        keep_freed_memory();
    }
}

void TorchBackend::make_parameters(const at::TensorOptions &floats) {
    const rp_model_options &model = spec_.model;
    const std::vector<Parameter> parameters = model_parameters(model);
    const int64_t count = parameter_count(parameters);
    for (at::Tensor *flat : {&parameters_, &exp_avg_, &exp_avg_sq_, &grad_}) {
        *flat = at::zeros({count}, floats);
    }
    const int64_t part = gpu_ ? adam_part : count;
    parts_ = {parameters_.split(part),
              grad_.split(part),
              exp_avg_.split(part),
              exp_avg_sq_.split(part),
              {}};
    for (const Parameter &parameter : parameters) {
        leaves_.push_back(parameters_.narrow(0, parameter.offset, parameter.size)
                              .view(parameter.shape)
                              .detach()
                              .requires_grad_(true));
    }
    for (int32_t layer = 0; layer < model.layers; ++layer) {
        const int64_t begin = parameters[static_cast<size_t>(4 * layer)].offset;
        const int64_t end = parameters[static_cast<size_t>(4 * layer + 4)].offset;
        layer_weights_.push_back(parameters_.narrow(0, begin, end - begin));
    }
    running_mean_ = at::zeros({model.hidden}, floats);
    running_var_ = at::ones({model.hidden}, floats);
    adam_step_ = at::zeros({}, floats);
    parts_.steps.assign(parts_.parameters.size(), adam_step_);
    counters_ = at::zeros({2}, floats.dtype(at::kLong));
    step_ = counters_.select(0, 0);
    place_ = counters_.narrow(0, 1, 1);
    losses_ = at::zeros({steps_per_epoch_}, floats);
}

void TorchBackend::set_precision() {
    precision_ = spec_.precision.empty() ? (gpu_ ? "tf32" : "fp32") : spec_.precision;
    if (precision_ != "fp32" && !(gpu_ && precision_ == "tf32")) {
        throw error(RP_ERROR_ARGUMENT, "configuration %s has no precision %s; %s",
                    spec_.configuration.c_str(), precision_.c_str(),
                    gpu_ ? "it has tf32 and fp32" : "it has fp32 only");
    }
    if (gpu_) {
        at::globalContext().setAllowTF32CuDNN(precision_ == "tf32");
        at::globalContext().setAllowTF32CuBLAS(false); // the head is fp32 everywhere
    }
}

int64_t TorchBackend::step_rows(int64_t step) const {
    return std::min(spec_.batch, windows_ - step % steps_per_epoch_ * spec_.batch);
}

// Everything that happens once: lazy handles, cuDNN's plans, captures. The state it leaves behind
// is overwritten by load(), which the trainer always calls next.
void TorchBackend::warm_up() {
#ifdef RP_HAVE_CUDA
    stream_ = c10::cuda::getStreamFromPool();
    c10::cuda::device_synchronize(); // the uploads ran on another stream
    const c10::cuda::CUDAStreamGuard guard(*stream_);
    for (const int64_t rows : {step_rows(0), step_rows(steps_per_epoch_ - 1)}) {
        if (graphs_.count(rows)) {
            continue;
        }
        for (int i = 0; i < 3; ++i) {
            counters_.zero_();
            step(rows);
        }
        counters_.zero_();
        stream_->synchronize();
        if (graph_) {
            graphs_[rows] = std::make_unique<StepGraph>(*stream_, [&] { step(rows); });
        }
    }
    stream_->synchronize();
#endif
}

const at::Tensor &TorchBackend::initial_hidden(int64_t rows) {
    at::Tensor &zeros = initial_hidden_[rows];
    if (!zeros.defined()) {
        zeros = at::zeros({1, rows, spec_.model.hidden}, parameters_.options());
    }
    return zeros;
}

// input [T][B][F or H] -> the layer's output [T][B][H], or h at the last step [B][H] when `last`.
// On the GPU cuDNN is called directly, because only so can it be told that the flat parameter
// vector already is its packed weight buffer.
at::Tensor TorchBackend::lstm_layer(int32_t layer, const at::Tensor &input, bool last) {
    const auto first = leaves_.begin() + 4 * layer;
    const std::vector<at::Tensor> weights(first, first + 4);
    const at::Tensor &zeros = initial_hidden(input.size(1));
    if (gpu_) {
        const auto result = at::_cudnn_rnn(
            input, weights, /*weight_stride0=*/4, layer_weights_[static_cast<size_t>(layer)], zeros,
            zeros, cudnn_lstm_mode, spec_.model.hidden, /*proj_size=*/0, /*num_layers=*/1,
            /*batch_first=*/false, /*dropout=*/0.0, /*train=*/true, /*bidirectional=*/false,
            /*batch_sizes=*/{}, /*dropout_state=*/{});
        return last ? std::get<1>(result).squeeze(0) : std::get<0>(result);
    }
    const auto result = at::lstm(input, {zeros, zeros}, weights, /*has_biases=*/true,
                                 /*num_layers=*/1, /*dropout=*/0.0, /*train=*/true,
                                 /*bidirectional=*/false, /*batch_first=*/false);
    return last ? std::get<1>(result).squeeze(0) : std::get<0>(result);
}

at::Tensor TorchBackend::norm_activation(const at::Tensor &input) {
    const rp_model_options &model = spec_.model;
    if (fused_) {
        return rp_ops::bn_leaky_relu(input, {}, {}, running_mean_, running_var_, /*training=*/true,
                                     model.norm_momentum, model.norm_eps, model.negative_slope);
    }
    return at::leaky_relu(at::batch_norm(input, {}, {}, running_mean_, running_var_,
                                         /*training=*/true, model.norm_momentum, model.norm_eps,
                                         /*cudnn_enabled=*/true),
                          model.negative_slope);
}

// This rank's rows of the current batch: h at the last step [own rows][H], and every row's target.
std::tuple<at::Tensor, at::Tensor> TorchBackend::last_hidden(int64_t rows, Share share) {
    const rp_model_options &model = spec_.model;
    const auto seed = static_cast<int64_t>(spec_.seed);
    auto [sequence, target] = gather_windows(features_, targets_, window_ends_, step_, seed,
                                             spec_.batch, rows, model.time_steps);
    if (share.rows == 0) {
        return {at::zeros({0, model.hidden}, parameters_.options()), target};
    }
    if (share.rows < rows) {
        sequence = sequence.narrow(1, share.first, share.rows).contiguous();
    }
    for (int32_t layer = 0; layer < model.layers; ++layer) {
        const bool last = layer + 1 == model.layers;
        sequence = lstm_layer(layer, sequence, last);
        if (!last && model.dropout > 0 && share.rows == rows) {
            sequence = lstm_dropout(sequence, step_, seed, layer, model.dropout);
        } else if (!last && model.dropout > 0) { // the mask depends on the row's place in the batch
            const at::Tensor whole =
                at::ones({model.time_steps, rows, model.hidden}, parameters_.options());
            sequence = sequence * lstm_dropout(whole, step_, seed, layer, model.dropout)
                                      .narrow(1, share.first, share.rows);
        }
    }
    return {sequence, target};
}

// The batch's mean squared error from h [B][H]; BatchNorm sees all rows.
at::Tensor TorchBackend::head_loss(const at::Tensor &hidden, const at::Tensor &target) {
    const at::Tensor prediction =
        at::linear(norm_activation(hidden), leaves_[leaves_.size() - 2], leaves_.back());
    return at::mse_loss(prediction.squeeze(1), target);
}

std::vector<at::Tensor> flat(std::vector<at::Tensor> tensors) {
    for (at::Tensor &tensor : tensors) {
        tensor = tensor.reshape({-1});
    }
    return tensors;
}

// Loss, and grad_, of a batch that the ranks share: each runs the LSTM on a block of rows,
// all run the head on all rows, and the LSTM's gradients are added in the order of the ranks. So
// every rank has the same bits, whatever the network between them does.
at::Tensor TorchBackend::shared_gradients(int64_t rows) {
    const int64_t block = (rows + ranks_->count() - 1) / ranks_->count();
    const int64_t first = std::min(rows, ranks_->rank() * block);
    const Share share = {first, std::min(block, rows - first)};
    const auto [own, target] = last_hidden(rows, share);
    at::Tensor padded = at::zeros({block, own.size(1)}, parameters_.options());
    padded.narrow(0, 0, share.rows).copy_(own.detach());
    const at::Tensor whole =
        ranks_->gather(padded).flatten(0, 1).narrow(0, 0, rows).contiguous().requires_grad_(true);

    const at::Tensor loss = head_loss(whole, target);
    const std::vector<at::Tensor> head =
        torch::autograd::grad({loss}, {whole, leaves_[leaves_.size() - 2], leaves_.back()});
    const std::vector<at::Tensor> lstm_leaves(leaves_.begin(), leaves_.end() - 2);
    at::Tensor lstm = at::zeros({grad_.size(0) - head[1].numel() - 1}, grad_.options());
    if (share.rows > 0) {
        const auto own_rows = head[0].narrow(0, share.first, share.rows);
        at::cat_out(lstm, flat(torch::autograd::grad({own}, lstm_leaves, {own_rows})));
    }
    const at::Tensor parts = ranks_->gather(lstm); // [ranks][parameters of the LSTM]
    at::Tensor sum = parts[0];
    for (int64_t rank = 1; rank < parts.size(0); ++rank) {
        sum.add_(parts[rank]);
    }
    at::cat_out(grad_, flat({sum, head[1], head[2]}));
    return loss.detach();
}

// The mean squared error of the current step's batch, and its gradients in grad_.
at::Tensor TorchBackend::gradients(int64_t rows) {
    if (ranks_) {
        return shared_gradients(rows);
    }
    const auto [hidden, target] = last_hidden(rows, {0, rows});
    const at::Tensor loss = head_loss(hidden, target);
    const std::vector<at::Tensor> grads = torch::autograd::grad({loss}, leaves_);
    const c10::NoGradGuard no_grad;
    at::cat_out(grad_, flat(grads));
    return loss.detach();
}

void TorchBackend::step(int64_t rows) {
    const at::Tensor loss = gradients(rows);
    const c10::NoGradGuard no_grad;
    adam_step_.add_(1);
    at::_fused_adam_(parts_.parameters, parts_.grad, parts_.exp_avg, parts_.exp_avg_sq, {},
                     parts_.steps, spec_.learning_rate, spec_.beta1, spec_.beta2,
                     /*weight_decay=*/0.0, spec_.eps, /*amsgrad=*/false, /*maximize=*/false);
    losses_.index_copy_(0, place_, loss.reshape({1}));
    counters_.add_(1);
}

void TorchBackend::train(int64_t first_step, int64_t steps, float *losses) {
#ifdef RP_HAVE_CUDA
    c10::cuda::OptionalCUDAStreamGuard guard;
    if (gpu_) {
        guard.reset_stream(*stream_);
    }
#endif
    counters_.copy_(at::tensor({first_step, int64_t{0}}, at::kLong));
    for (int64_t s = first_step; s < first_step + steps; ++s) {
        const int64_t rows = step_rows(s);
#ifdef RP_HAVE_CUDA
        if (graph_) {
            graphs_.at(rows)->replay();
            continue;
        }
#endif
        step(rows);
    }
    const at::Tensor host = losses_.narrow(0, 0, steps).cpu(); // waits for the device
    std::memcpy(losses, host.const_data_ptr<float>(), static_cast<size_t>(steps) * sizeof(float));
}

void TorchBackend::load(const State &state) {
    const c10::NoGradGuard no_grad;
    auto put = [](at::Tensor &tensor, const std::vector<float> &values) {
        tensor.copy_(at::from_blob(const_cast<float *>(values.data()), tensor.sizes(), at::kFloat));
    };
    put(parameters_, state.parameters);
    put(exp_avg_, state.exp_avg);
    put(exp_avg_sq_, state.exp_avg_sq);
    put(running_mean_, state.running_mean);
    put(running_var_, state.running_var);
    adam_step_.fill_(static_cast<double>(state.step - state.skipped_steps));
#ifdef RP_HAVE_CUDA
    if (gpu_) {
        c10::cuda::device_synchronize(); // training runs on another stream
    }
#endif
}

void TorchBackend::store(State &state) {
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
}

int64_t TorchBackend::peak_memory() const {
    if (gpu_) {
        return gpu_peak_memory();
    }
    struct rusage usage {};
    return getrusage(RUSAGE_SELF, &usage) == 0 ? int64_t{usage.ru_maxrss} * 1024 : 0;
}

} // namespace

std::unique_ptr<Backend> make_torch_backend(const TrainerSpec &spec, const TrainingData &data) {
    return std::make_unique<TorchBackend>(spec, data);
}

} // namespace rp
