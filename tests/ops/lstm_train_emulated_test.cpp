// The GPU's training kernel on the CPU: the kernel's own source, compiled for C++, whose threads
// are fibers and whose PTX is emulated. Shows that its numbers are right (beside float64), that no
// barrier is missing where an order of threads can tell, and that launches and models are
// independent; says nothing of its speed or of the GPU's memory model.
#include <gtest/gtest.h>

#include "kernels/lstm_train.cu"
#include "kernels/lstm_train_bf16.cu"
#include "kernels/lstm_train_fp16.cu"
#include "kernels/lstm_train_fp32.cu"
#include "kernels/lstm_train_tf32.cu"
#include "lstm_train_reference.h"

namespace {

int clusters_on_device = 0; // see Device
size_t shared_bytes_on_device = SIZE_MAX;

} // namespace

cudaError_t cudaOccupancyMaxActiveClusters(int *clusters, const void *,
                                           const cudaLaunchConfig_t *config) {
    *clusters = config->dynamicSmemBytes <= shared_bytes_on_device ? clusters_on_device : 0;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel,
                                void **arguments) {
    const auto &launch = *static_cast<const rp_lstm::Launch *>(arguments[0]);
    const auto function = reinterpret_cast<void (*)(rp_lstm::Launch)>(const_cast<void *>(kernel));
    emulation::run({{config->gridDim.x, config->gridDim.y, 1},
                    static_cast<int>(config->blockDim.x),
                    static_cast<int>(config->attrs[0].val.clusterDim.x),
                    config->dynamicSmemBytes},
                   [&] { function(launch); });
    return cudaSuccess;
}

namespace {

using rp::LstmCpuShape;
using rp::LstmCpuTrainOptions;
using Floats = std::vector<float>;

constexpr LstmCpuShape narrow = {4, 5, 32, 2};

LstmCpuTrainOptions options_of(const LstmCpuShape &shape, int64_t batch, float slope = 0.01f) {
    return {shape, 0.2f, 0.1f, 1e-5f, slope, 1e-3, 0.9, 0.999, 1e-8, batch, 5, 1};
}

// What is trained: the state of `models` models, which differ in seed, learning rate and windows.
struct Training {
    const reference::Problem &problem;
    LstmCpuTrainOptions options;
    rp_lstm_precision precision;
    int first_model, models;
    Floats parameters, exp_avg, exp_avg_sq, running_mean, running_var, scale, losses;

    Training(const reference::Problem &data, const LstmCpuTrainOptions &wanted,
             rp_lstm_precision operands, int first = 0, int count = 1)
        : problem(data), options(wanted), precision(operands), first_model(first), models(count) {
        const auto m = static_cast<size_t>(models);
        for (size_t i = 0; i < m; ++i) {
            const auto add = [](Floats &to, const Floats &from) {
                to.insert(to.end(), from.begin(), from.end());
            };
            add(parameters, problem.parameters);
            add(running_mean, problem.running_mean);
            add(running_var, problem.running_var);
        }
        exp_avg.resize(parameters.size());
        exp_avg_sq.resize(parameters.size());
        scale.resize(3 * m);
    }

    void run(int64_t first_step, int32_t steps) {
        const LstmCpuShape &s = options.shape;
        const auto windows = static_cast<int64_t>(problem.window_ends.size());
        std::vector<int64_t> ranges, seeds;
        Floats rates;
        for (int m = first_model; m < first_model + models; ++m) {
            ranges.insert(ranges.end(), {m, windows - 2 * m});
            seeds.push_back(static_cast<int64_t>(options.seed) + m);
            rates.push_back(static_cast<float>(options.learning_rate * (1 + m)));
        }
        Floats of_steps(seeds.size() * static_cast<size_t>(steps));
        rp_lstm_train_params p = {};
        p.shape = {models,   s.features, s.time_steps,
                   s.hidden, s.layers,   static_cast<int32_t>(options.batch),
                   precision};
        p.first_step = first_step;
        p.steps = steps;
        Floats features = problem.features;
        features.push_back(NAN); // what nobody may use
        p.features = features.data();
        p.targets = problem.targets.data();
        p.window_ends = problem.window_ends.data();
        p.window_ranges = ranges.data();
        p.seeds = seeds.data();
        p.learning_rates = rates.data();
        p.parameters = parameters.data();
        p.exp_avg = exp_avg.data();
        p.exp_avg_sq = exp_avg_sq.data();
        p.running_mean = running_mean.data();
        p.running_var = running_var.data();
        p.losses = of_steps.data();
        p.scale_state = scale.data();
        p.dropout = options.dropout;
        p.momentum = options.norm_momentum;
        p.norm_eps = options.norm_eps;
        p.negative_slope = options.negative_slope;
        p.beta1 = options.beta1;
        p.beta2 = options.beta2;
        p.adam_eps = static_cast<float>(options.eps);
        rp_lstm_train_plan plan;
        ASSERT_EQ(rp_lstm_train_plan_make(&plan, &p.shape), cudaSuccess);
        // Numbers that an earlier launch may have left.
        std::vector<uint8_t> workspace(plan.workspace_bytes + 256, 0xcd);
        p.workspace =
            workspace.data() + (256 - reinterpret_cast<uintptr_t>(workspace.data()) % 256);
        ASSERT_EQ(rp_launch_lstm_train(&p, &plan, nullptr), cudaSuccess);
        losses.insert(losses.end(), of_steps.begin(), of_steps.end());
    }

    // Of model m, all of its state.
    Floats state(int m) const {
        Floats all;
        for (const Floats *part :
             {&parameters, &exp_avg, &exp_avg_sq, &running_mean, &running_var}) {
            const auto size = static_cast<std::ptrdiff_t>(part->size()) / models;
            all.insert(all.end(), part->begin() + m * size, part->begin() + (m + 1) * size);
        }
        return all;
    }
};

double distance(const Floats &found, float factor, const reference::Row &expected) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(found[i] * factor - expected[i], 2);
        norm += expected[i] * expected[i];
    }
    return std::sqrt(difference / norm);
}

// Relative L2 distance of the gradient from float64's.
double tolerance(rp_lstm_precision precision) {
    return precision == RP_LSTM_FP32 ? 2e-5 : precision == RP_LSTM_BF16 ? 5e-2 : 5e-3;
}

void expect_float64(const LstmCpuShape &shape, int windows, int64_t batch, int64_t step,
                    rp_lstm_precision precision = RP_LSTM_FP32) {
    const reference::Problem problem(shape, windows);
    // With a slope of 1, no rounding of operands can flip a sign near LeakyReLU's kink.
    const LstmCpuTrainOptions options =
        options_of(shape, batch, precision == RP_LSTM_FP32 ? 0.01f : 1.0f);
    const reference::StepResult expected = reference::TrainStep(problem, options, step).run();
    Training training(problem, options, precision);
    ASSERT_NO_FATAL_FAILURE(training.run(step, 1));
    const double allowed = tolerance(precision);
    EXPECT_NEAR(training.losses[0], expected.loss, allowed * expected.loss);
    // From zero moments, Adam's first is 0.1 times the gradient and its second 0.001 times the
    // square.
    EXPECT_LT(distance(training.exp_avg, 1.0f / static_cast<float>(1.0 - options.beta1),
                       expected.gradient),
              allowed);
    reference::Row squares;
    for (size_t i = 0; i < expected.gradient.size(); ++i) {
        squares.push_back(std::pow(expected.gradient[i], 2));
        if (std::fabs(expected.gradient[i]) > 100 * allowed) { // else it's known no better
            EXPECT_NEAR(training.parameters[i], expected.parameters[i], 2e-7) << i;
        }
    }
    EXPECT_LT(
        distance(training.exp_avg_sq, 1.0f / static_cast<float>(1.0 - options.beta2), squares),
        3 * allowed);
    for (size_t u = 0; u < expected.running_mean.size(); ++u) {
        EXPECT_NEAR(training.running_mean[u], expected.running_mean[u], 0.02 * allowed);
        EXPECT_NEAR(training.running_var[u], expected.running_var[u], 0.02 * allowed);
    }
}

// During its life the device has room for `clusters` whose blocks have no more than `shared_bytes`
// each, and its threads take turns in that order.
struct Device {
    explicit Device(int clusters, unsigned order_seed = 0, size_t shared_bytes = SIZE_MAX) {
        clusters_on_device = clusters;
        shared_bytes_on_device = shared_bytes;
        emulation::order_seed = order_seed;
    }
    ~Device() {
        shared_bytes_on_device = SIZE_MAX;
        emulation::order_seed = 0;
    }
};

rp_lstm_train_plan plan_of(const LstmCpuShape &s, int batch, rp_lstm_precision precision) {
    const rp_lstm_train_shape shape = {1,        s.features, s.time_steps, s.hidden,
                                       s.layers, batch,      precision};
    rp_lstm_train_plan plan = {};
    EXPECT_EQ(rp_lstm_train_plan_make(&plan, &shape), cudaSuccess);
    return plan;
}

TEST(LstmTrainEmulated, each_precision_equals_float64) {
    const Device device(4);
    for (const rp_lstm_precision precision :
         {RP_LSTM_FP16, RP_LSTM_BF16, RP_LSTM_TF32, RP_LSTM_FP32}) {
        SCOPED_TRACE(precision);
        expect_float64(narrow, 40, 20, 1, precision);
    }
}

TEST(LstmTrainEmulated, wide_layers_equal_float64) {
    const Device device(2);
    expect_float64({4, 6, 64, 2}, 20, 10, 0, RP_LSTM_FP16);
    expect_float64({9, 4, 64, 1}, 20, 9, 0, RP_LSTM_FP32);
}

TEST(LstmTrainEmulated, odd_shapes_equal_float64) {
    const Device device(4);
    expect_float64({1, 1, 32, 2}, 30, 12, 0);
    expect_float64({32, 3, 32, 1}, 30, 9, 0);
    expect_float64({17, 9, 32, 2}, 30, 20, 0, RP_LSTM_TF32);
    expect_float64({10, 3, 64, 2}, 30, 20, 0, RP_LSTM_TF32);
    expect_float64({7, 5, 64, 2}, 30, 20, 0, RP_LSTM_BF16);
    expect_float64({32, 2, 64, 1}, 30, 20, 0, RP_LSTM_FP16);
}

// In one layer's only time step nothing but x and W_x is rounded before the loss.
TEST(LstmTrainEmulated, few_features_meet_their_weights_in_twice_the_bits) {
    const Device device(2);
    for (const int features : {1, 4, 5, 10}) {
        const LstmCpuShape shape = {features, 1, 32, 1};
        reference::Problem problem(shape, 30);
        const LstmCpuTrainOptions options = options_of(shape, 12);
        for (const auto precision : {RP_LSTM_FP16, RP_LSTM_BF16, RP_LSTM_TF32}) {
            SCOPED_TRACE(testing::Message() << features << " features, " << precision);
            Training one(problem, options, precision), two(problem, options, precision);
            ASSERT_NO_FATAL_FAILURE(one.run(0, 1));
            ASSERT_NO_FATAL_FAILURE(two.run(0, 2));
            reference::Problem updated = problem;
            updated.parameters = one.parameters;
            const double expected[] = {reference::TrainStep(problem, options, 0).run().loss,
                                       reference::TrainStep(updated, options, 1).run().loss};
            const double allowed = precision == RP_LSTM_BF16 ? 1e-4 : 2e-6;
            for (size_t step = 0; step < 2; ++step) {
                EXPECT_NEAR(two.losses[step] / expected[step], 1, allowed) << "step " << step;
            }
        }
    }
}

TEST(LstmTrainEmulated, pieces_that_wait_in_device_memory_equal_float64) {
    const Device device(2);
    for (const rp_lstm_precision precision : {RP_LSTM_TF32, RP_LSTM_FP32}) {
        expect_float64(narrow, 50, 45, 0, precision);
    }
    expect_float64(narrow, 50, 45, 0, RP_LSTM_FP16); // six tiles for two clusters
    // Segments of 16 and 17 time steps: the first comes back in fewer chunks.
    expect_float64({4, 33, 32, 2}, 12, 10, 0, RP_LSTM_FP16);
    EXPECT_EQ(plan_of({4, 33, 32, 2}, 10, RP_LSTM_FP16).segment_steps, 17);
    expect_float64({4, 6, 64, 2}, 50, 45, 0, RP_LSTM_FP16); // two warpgroups carry sums
    EXPECT_TRUE(plan_of({4, 6, 64, 2}, 45, RP_LSTM_FP16).carries_sums);
    expect_float64({4, 22, 64, 2}, 22, 20, 0, RP_LSTM_FP16); // there is no room for sums
    EXPECT_FALSE(plan_of({4, 22, 64, 2}, 20, RP_LSTM_FP16).carries_sums);
    expect_float64({3, 6, 32, 1}, 40, 33, 0); // one layer, three tiles
    // Two segments, of which the shorter's time steps end beside the longer's largest gradients.
    expect_float64({4, 63, 32, 1}, 10, 8, 0, RP_LSTM_FP16);
}

TEST(LstmTrainEmulated, bits_do_not_depend_on_room_for_carried_sums) {
    for (const LstmCpuShape &shape : {narrow, LstmCpuShape{4, 34, 32, 1}}) { // tiles; segments too
        const reference::Problem problem(shape, 43);
        const LstmCpuTrainOptions options = options_of(shape, 20);
        const Device roomy(1);
        const rp_lstm_train_plan plan = plan_of(shape, 20, RP_LSTM_FP16);
        ASSERT_TRUE(plan.carries_sums);
        Training expected(problem, options, RP_LSTM_FP16), other(problem, options, RP_LSTM_FP16);
        ASSERT_NO_FATAL_FAILURE(expected.run(0, 3));
        const Device tight(1, 0, plan.shared_bytes - 1);
        ASSERT_FALSE(plan_of(shape, 20, RP_LSTM_FP16).carries_sums);
        ASSERT_NO_FATAL_FAILURE(other.run(0, 3));
        EXPECT_EQ(other.state(0), expected.state(0));
    }
    // The benchmark's shape, with more tiles than clusters: every byte is used.
    const Device device(1);
    EXPECT_TRUE(plan_of({4, 20, 64, 2}, 1024, RP_LSTM_FP16).carries_sums);
}

TEST(LstmTrainEmulated, more_tiles_than_windows_are_found_ahead_equal_float64) {
    const Device device(1);
    expect_float64({4, 2, 32, 2}, 80, 70, 0); // nine tiles of one cluster
}

TEST(LstmTrainEmulated, several_steps_equal_the_cpu_kernel) {
    const Device device(4);
    const reference::Problem problem(narrow, 43);
    const LstmCpuTrainOptions options = options_of(narrow, 14);
    Training training(problem, options, RP_LSTM_FP32), expected(problem, options, RP_LSTM_FP32);
    ASSERT_NO_FATAL_FAILURE(training.run(0, 5));
    Floats losses(5);
    rp::LstmCpuTrainer trainer(options, {problem.features.data(), problem.targets.data(),
                                         problem.window_ends.data(),
                                         static_cast<int64_t>(problem.window_ends.size())});
    trainer.train({expected.parameters.data(), expected.exp_avg.data(), expected.exp_avg_sq.data(),
                   expected.running_mean.data(), expected.running_var.data()},
                  0, 5, losses.data());
    for (size_t step = 0; step < losses.size(); ++step) {
        EXPECT_NEAR(training.losses[step], losses[step], 1e-5 * losses[step]);
    }
    const auto same = [](const Floats &found, const Floats &wanted) {
        return distance(found, 1.0f, reference::Row(wanted.begin(), wanted.end()));
    };
    EXPECT_LT(same(training.exp_avg, expected.exp_avg), 1e-4);
    EXPECT_LT(same(training.exp_avg_sq, expected.exp_avg_sq), 1e-4);
    EXPECT_LT(same(training.parameters, expected.parameters), 1e-5);
}

TEST(LstmTrainEmulated, short_last_batches_equal_float64) {
    const Device device(4);
    expect_float64(narrow, 34, 14, 2); // 6 rows
    expect_float64(narrow, 29, 14, 2); // one row would be left: a new epoch
    expect_float64(narrow, 30, 2, 7);  // the least that BatchNorm takes
}

void expect_same_bits_in_any_order(const LstmCpuShape &shape, int clusters,
                                   rp_lstm_precision precision = RP_LSTM_FP16) {
    const reference::Problem problem(shape, 43); // 14, 14, 14 rows, and one that is left out
    const Device in_order(clusters);
    Training expected(problem, options_of(shape, 14), precision);
    ASSERT_NO_FATAL_FAILURE(expected.run(0, 4));
    for (unsigned seed = 1; seed < 10; ++seed) {
        const Device device(clusters, seed);
        Training other(problem, options_of(shape, 14), precision);
        ASSERT_NO_FATAL_FAILURE(other.run(0, 1));
        ASSERT_NO_FATAL_FAILURE(other.run(1, 3));
        EXPECT_EQ(other.state(0), expected.state(0)) << clusters << " clusters, seed " << seed;
        EXPECT_EQ(other.losses, expected.losses);
    }
}

TEST(LstmTrainEmulated, bits_depend_neither_on_the_order_of_threads_nor_on_launches) {
    expect_same_bits_in_any_order(narrow, 4);        // a tile each
    expect_same_bits_in_any_order({4, 9, 32, 2}, 1); // two tiles, one back in several chunks
    // The same where gradients from above arrive in the slots that come back.
    expect_same_bits_in_any_order({4, 9, 32, 2}, 1, RP_LSTM_TF32);
}

TEST(LstmTrainEmulated, models_do_not_depend_on_those_beside_them) {
    const Device device(4); // of three models with two tiles each, two fit into a launch
    const reference::Problem problem(narrow, 30);
    Training together(problem, options_of(narrow, 9), RP_LSTM_FP16, 0, 3);
    ASSERT_NO_FATAL_FAILURE(together.run(0, 5));
    for (int m = 0; m < 3; ++m) {
        Training alone(problem, options_of(narrow, 9), RP_LSTM_FP16, m);
        ASSERT_NO_FATAL_FAILURE(alone.run(0, 5));
        EXPECT_EQ(together.state(m), alone.state(0)) << "model " << m;
    }
}

TEST(LstmTrainEmulated, a_step_that_overflows_is_skipped) {
    const Device device(4);
    reference::Problem problem(narrow, 40);
    problem.targets.assign(problem.targets.size(), 1e9f); // gradients beyond fp16's range
    for (const auto precision : {RP_LSTM_FP16, RP_LSTM_FP32}) {
        Training training(problem, options_of(narrow, 20), precision);
        const Floats before = training.parameters;
        ASSERT_NO_FATAL_FAILURE(training.run(0, 2));
        EXPECT_EQ(training.parameters, before);
        EXPECT_EQ(training.scale[2], 2.0f);
        const rp_lstm_train_shape shape = {1,  narrow.features, 1, narrow.hidden, narrow.layers,
                                           20, precision};
        EXPECT_EQ(training.scale[0], rp_lstm_train_first_scale(&shape) / 4); // halved twice
    }
}

} // namespace
