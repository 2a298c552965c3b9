#include "kernels/lstm_cpu_train.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/lstm_cpu_team.h"
#include "kernels/lstm_cpu_weights.h"
#include "kernels/random.h"

namespace rp {
namespace {

// Gradients are summed per group of slices first: also the most threads that backward can use.
constexpr int64_t most_groups = 8;

// One group's gradients: per layer dW [4H][columns] and dbias [4H], see LstmCpuGradient.
struct GroupLayout {
    int64_t weight[lstm_cpu_most_layers], bias[lstm_cpu_most_layers];
    int64_t columns[lstm_cpu_most_layers];
    int64_t size;

    GroupLayout(const LstmCpuModel &model, const LstmCpuKernels &kernels) : size(0) {
        for (int64_t l = 0; l < model.shape.layers; ++l) {
            columns[l] = lstm_cpu_gradient_columns(model, kernels, l);
            weight[l] = size;
            bias[l] = weight[l] + 4 * model.shape.hidden * columns[l];
            size = lstm_cpu_round_up(bias[l] + 4 * model.shape.hidden, 16);
        }
    }
};

} // namespace

class LstmCpuTrainer::Run {
  public:
    Run(const LstmCpuTrainOptions &options, const LstmCpuTrainData &data, LstmCpuIsa isa);
    void train(const LstmCpuTrainState &state, int64_t first_step, int64_t steps, float *losses);
    const float *gradient() const { return gradient_.data(); }

  private:
    // The step at hand, the same in every thread.
    struct Step {
        int64_t number, rows, slices, stride; // stride: columns of h_, dh_
        int64_t position;                     // in the epoch, of the first row
        rp_order_key order;
        LstmCpuDropout dropout;
    };
    Step make_step(int64_t number) const;
    void run_step(const LstmCpuTrainState &state, const Step &step, int32_t thread, float *loss);
    void gather(const Step &step, int64_t slice);
    LstmCpuSlice slice_windows(const Step &step, int64_t slice) const;
    float *saved(int64_t slice) { return saved_.data() + slice * saved_slice_; }
    void backward_group(const Step &step, int64_t group, int64_t groups, LstmCpuBuffers &buffers);
    float head(const LstmCpuTrainState &state, const Step &step);
    void update(const LstmCpuTrainState &state, const Step &step, int32_t thread);
    void sum_groups(int64_t to, int64_t from, int64_t count, int64_t groups);
    void update_rows(const LstmCpuAdam &adam, int64_t layer, int64_t gate, int64_t first_unit,
                     int64_t last_unit);

    LstmCpuTrainOptions options_;
    LstmCpuTrainData data_;
    const LstmCpuKernels &kernels_;
    LstmCpuWeights weights_;
    GroupLayout layout_;
    std::vector<LstmCpuBuffers> buffers_; // one a thread
    std::vector<int32_t> ends_;           // [B]
    AlignedFloats targets_, error_;       // [stride]
    AlignedFloats h_, dh_;                // [U][stride]
    int64_t saved_slice_;
    AlignedFloats saved_;    // [slices][T][L][U][5][S]
    AlignedFloats groups_;   // [most_groups][layout_.size]
    AlignedFloats gradient_; // [P]
    Team team_;
    std::atomic<int64_t> next_slice_{0}, next_group_{0};
};

LstmCpuTrainer::Run::Run(const LstmCpuTrainOptions &options, const LstmCpuTrainData &data,
                         LstmCpuIsa isa)
    : options_(options), data_(data), kernels_(lstm_cpu_kernels(isa)),
      weights_(options.shape, kernels_, LstmCpuUse::training), layout_(weights_.model, kernels_) {
    weights_.model.negative_slope = options.negative_slope;
    const int64_t rows = std::min(options.batch, data.windows), S = kernels_.slice;
    const int64_t slices = (rows + S - 1) / S, U = weights_.model.units;
    for (int32_t thread = 0; thread < options.threads; ++thread) {
        buffers_.emplace_back(weights_.model, kernels_, LstmCpuUse::training);
    }
    saved_slice_ =
        static_cast<int64_t>(options.shape.time_steps) * options.shape.layers * U * 5 * S;
    ends_.resize(static_cast<size_t>(rows));
    for (AlignedFloats *array : {&targets_, &error_}) {
        array->resize(static_cast<size_t>(slices * S));
    }
    for (AlignedFloats *array : {&h_, &dh_}) {
        array->resize(static_cast<size_t>(U * slices * S));
    }
    saved_.resize(static_cast<size_t>(slices * saved_slice_));
    groups_.resize(static_cast<size_t>(most_groups * layout_.size));
    gradient_.resize(static_cast<size_t>(lstm_cpu_parameter_count(options.shape)));
}

LstmCpuTrainer::Run::Step LstmCpuTrainer::Run::make_step(int64_t number) const {
    // A last batch of one row has no batch statistics and is left out of the epoch.
    const int64_t batch = options_.batch, windows = data_.windows, S = kernels_.slice;
    const int64_t per_epoch = windows / batch + (windows % batch >= 2 ? 1 : 0);
    const uint32_t threshold = rp_dropout_threshold(options_.dropout);
    Step step{};
    step.number = number;
    step.position = number % per_epoch * batch;
    step.rows = std::min(batch, windows - step.position);
    step.slices = (step.rows + S - 1) / S;
    step.stride = step.slices * S;
    step.order = rp_order_key_make(static_cast<uint32_t>(windows), options_.seed,
                                   static_cast<uint32_t>(number / per_epoch));
    step.dropout = {options_.seed, number, threshold, rp_dropout_scale(threshold)};
    return step;
}

// Window ends and targets of a slice's rows.
void LstmCpuTrainer::Run::gather(const Step &step, int64_t slice) {
    const int64_t first = slice * kernels_.slice;
    for (int64_t row = first; row < first + kernels_.slice; ++row) {
        const auto at = static_cast<size_t>(row);
        if (row >= step.rows) {
            targets_[at] = 0.0f;
            continue;
        }
        const uint32_t window = rp_order(static_cast<uint32_t>(step.position + row), &step.order);
        ends_[at] = data_.window_ends[window];
        targets_[at] = data_.targets[ends_[at]];
    }
}

LstmCpuSlice LstmCpuTrainer::Run::slice_windows(const Step &step, int64_t slice) const {
    const int64_t first = slice * kernels_.slice;
    return {data_.features, ends_.data() + first, std::min(kernels_.slice, step.rows - first),
            first};
}

float LstmCpuTrainer::Run::head(const LstmCpuTrainState &state, const Step &step) {
    float *gradient =
        gradient_.data() + lstm_cpu_layer_offset(options_.shape, options_.shape.layers);
    return kernels_.head({step.rows, step.stride, targets_.data(), h_.data(), dh_.data(),
                          error_.data(), state.running_mean, state.running_var, gradient,
                          gradient + options_.shape.hidden, options_.norm_momentum,
                          options_.norm_eps},
                         weights_.model);
}

void LstmCpuTrainer::Run::backward_group(const Step &step, int64_t group, int64_t groups,
                                         LstmCpuBuffers &buffers) {
    const int64_t lanes = kernels_.lanes, hidden = options_.shape.hidden;
    float *memory = groups_.data() + group * layout_.size;
    std::fill_n(memory, layout_.size, 0.0f);
    LstmCpuGradient gradient{};
    for (int64_t l = 0; l < options_.shape.layers; ++l) {
        gradient.weight[l] = memory + layout_.weight[l];
        gradient.columns[l] = layout_.columns[l];
        std::fill_n(buffers.work.dbias[l], 4 * hidden * lanes, 0.0f);
    }
    for (int64_t slice = group * step.slices / groups; slice < (group + 1) * step.slices / groups;
         ++slice) {
        kernels_.backward_slice(gradient, saved(slice), dh_.data() + slice * kernels_.slice,
                                step.stride, weights_.model, buffers.work,
                                slice_windows(step, slice), step.dropout);
    }
    for (int64_t l = 0; l < options_.shape.layers; ++l) {
        for (int64_t row = 0; row < 4 * hidden; ++row) {
            const float *part = buffers.work.dbias[l] + row * lanes;
            float sum = 0.0f;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                sum += part[lane];
            }
            memory[layout_.bias[l] + row] = sum;
        }
    }
}

// gradient_ [to, to + count) = the groups' sum, in order.
void LstmCpuTrainer::Run::sum_groups(int64_t to, int64_t from, int64_t count, int64_t groups) {
    float *out = gradient_.data() + to;
    std::copy_n(groups_.data() + from, count, out);
    for (int64_t group = 1; group < groups; ++group) {
        const float *part = groups_.data() + group * layout_.size + from;
        for (int64_t i = 0; i < count; ++i) {
            out[i] += part[i];
        }
    }
}

// Adam on one gate's rows of the given units: in each of the layer's arrays they are adjacent.
void LstmCpuTrainer::Run::update_rows(const LstmCpuAdam &adam, int64_t layer, int64_t gate,
                                      int64_t first_unit, int64_t last_unit) {
    const int64_t H = options_.shape.hidden, K = lstm_cpu_layer_inputs(options_.shape, layer);
    int64_t begin = lstm_cpu_layer_offset(options_.shape, layer);
    for (const int64_t width : {K, H, int64_t{1}, int64_t{1}}) {
        const int64_t at = begin + (gate * H + first_unit) * width;
        LstmCpuAdam rows = adam;
        rows.parameters += at;
        rows.exp_avg += at;
        rows.exp_avg_sq += at;
        rows.gradient += at;
        rows.count = (last_unit - first_unit) * width;
        kernels_.adam(rows);
        begin += 4 * H * width;
    }
}

// The thread's share of the units: their gradients in PyTorch's order, then Adam.
void LstmCpuTrainer::Run::update(const LstmCpuTrainState &state, const Step &step, int32_t thread) {
    const LstmCpuShape &shape = options_.shape;
    const int64_t H = shape.hidden, U = weights_.model.units;
    const int64_t first = H * thread / team_.size(), last = H * (thread + 1) / team_.size();
    const int64_t groups = std::min(most_groups, step.slices);
    const auto t = static_cast<double>(step.number + 1);
    const double correction1 = 1 - std::pow(options_.beta1, t);
    const double correction2 = 1 - std::pow(options_.beta2, t);
    LstmCpuAdam adam = {state.parameters,
                        state.exp_avg,
                        state.exp_avg_sq,
                        gradient_.data(),
                        0,
                        static_cast<float>(1 - options_.beta1),
                        static_cast<float>(options_.beta2),
                        static_cast<float>(1 - options_.beta2),
                        static_cast<float>(options_.eps),
                        static_cast<float>(options_.learning_rate / correction1),
                        static_cast<float>(1 / std::sqrt(correction2))};
    for (int64_t l = 0; l < shape.layers; ++l) {
        const int64_t K = lstm_cpu_layer_inputs(shape, l);
        const int64_t input_weight = lstm_cpu_layer_offset(shape, l);
        const int64_t hidden_weight = input_weight + 4 * H * K, bias = hidden_weight + 4 * H * H;
        for (int64_t gate = 0; gate < 4; ++gate) {
            for (int64_t unit = first; unit < last; ++unit) {
                const int64_t from = 4 * unit + gate, to = gate * H + unit;
                const int64_t row = layout_.weight[l] + from * layout_.columns[l];
                sum_groups(hidden_weight + to * H, row, H, groups);
                sum_groups(input_weight + to * K, row + U, K, groups);
                sum_groups(bias + to, layout_.bias[l] + from, 1, groups);
                gradient_[static_cast<size_t>(bias + 4 * H + to)] =
                    gradient_[static_cast<size_t>(bias + to)];
            }
            update_rows(adam, l, gate, first, last);
        }
    }
    if (thread == 0) {
        const int64_t at = lstm_cpu_layer_offset(shape, shape.layers);
        adam.parameters += at;
        adam.exp_avg += at;
        adam.exp_avg_sq += at;
        adam.gradient += at;
        adam.count = H + 1;
        kernels_.adam(adam);
    }
}

void LstmCpuTrainer::Run::run_step(const LstmCpuTrainState &state, const Step &step, int32_t thread,
                                   float *loss) {
    LstmCpuBuffers &buffers = buffers_[static_cast<size_t>(thread)];
    weights_.pack(state.parameters, thread, team_.size());
    team_.wait(); // the weights are whole
    for (int64_t slice; (slice = next_slice_++) < step.slices;) {
        gather(step, slice);
        kernels_.forward_slice(saved(slice), h_.data() + slice * kernels_.slice, step.stride,
                               weights_.model, buffers.work, slice_windows(step, slice),
                               step.dropout);
    }
    team_.wait(); // h of every slice is there
    if (thread == 0) {
        *loss = head(state, step);
        next_slice_ = 0;
    }
    team_.wait(); // so is dh
    const int64_t groups = std::min(most_groups, step.slices);
    for (int64_t group; (group = next_group_++) < groups;) {
        backward_group(step, group, groups, buffers);
    }
    team_.wait(); // every group's gradients are there
    if (thread == 0) {
        next_group_ = 0;
    }
    update(state, step, thread);
    team_.wait(); // the parameters are new
}

void LstmCpuTrainer::Run::train(const LstmCpuTrainState &state, int64_t first_step, int64_t steps,
                                float *losses) {
    Team::run(options_.threads, team_, [&](int32_t thread) {
        for (int64_t s = 0; s < steps; ++s) {
            run_step(state, make_step(first_step + s), thread, losses + s);
        }
    });
}

LstmCpuTrainer::LstmCpuTrainer(const LstmCpuTrainOptions &options, const LstmCpuTrainData &data,
                               LstmCpuIsa isa)
    : run_(new Run(options, data, isa)) {}

LstmCpuTrainer::~LstmCpuTrainer() = default;

void LstmCpuTrainer::train(const LstmCpuTrainState &state, int64_t first_step, int64_t steps,
                           float *losses) {
    run_->train(state, first_step, steps, losses);
}

const float *LstmCpuTrainer::gradient() const {
    return run_->gradient();
}

} // namespace rp
