// The CPU training step of every instruction set against float64, and its determinism.
#include <gtest/gtest.h>

#include "lstm_train_reference.h"

namespace {

using rp::LstmCpuIsa;
using rp::LstmCpuShape;
using rp::LstmCpuTrainOptions;

constexpr LstmCpuShape default_shape = {4, 20, 64, 2};

// Relative L2 distance from float64 of each parameter array. Bias gradients are sums over all rows
// and time steps in which BatchNorm makes most cancel; PyTorch's own float32 is as far or farther.
constexpr double weight_tolerance = 5e-5, bias_tolerance = 3e-4;
constexpr double loss_tolerance = 1e-6; // relative
// BatchNorm over few rows of a deep, narrow model divides by small variances.
constexpr double odd_shape_slack = 4;
constexpr double statistics_tolerance = 1e-6; // of the largest

struct State {
    std::vector<float> parameters, exp_avg, exp_avg_sq, running_mean, running_var;

    explicit State(const reference::Problem &problem)
        : parameters(problem.parameters), exp_avg(parameters.size()), exp_avg_sq(parameters.size()),
          running_mean(problem.running_mean), running_var(problem.running_var) {}
    rp::LstmCpuTrainState view() {
        return {parameters.data(), exp_avg.data(), exp_avg_sq.data(), running_mean.data(),
                running_var.data()};
    }
};

LstmCpuTrainOptions make_options(const LstmCpuShape &shape, int64_t batch, float dropout = 0.2f) {
    return {shape, dropout, 0.1f, 1e-5f, 0.01f, 1e-3, 0.9, 0.999, 1e-8, batch, 5, 1};
}

rp::LstmCpuTrainData data_of(const reference::Problem &problem) {
    return {problem.features.data(), problem.targets.data(), problem.window_ends.data(),
            static_cast<int64_t>(problem.window_ends.size())};
}

std::vector<LstmCpuIsa> isas() {
    std::vector<LstmCpuIsa> found = {LstmCpuIsa::portable};
    for (const LstmCpuIsa isa : {LstmCpuIsa::avx2, LstmCpuIsa::avx512}) {
        if (isa <= rp::lstm_cpu_best_isa()) {
            found.push_back(isa);
        }
    }
    return found;
}

double relative_distance(const float *found, const double *expected, size_t count) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; ++i) {
        difference += std::pow(found[i] - expected[i], 2);
        norm += expected[i] * expected[i];
    }
    return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

void expect_gradient_equals(const float *found, const reference::Row &expected,
                            const LstmCpuShape &shape, LstmCpuIsa isa, double slack) {
    const auto H = static_cast<size_t>(shape.hidden);
    size_t offset = 0;
    auto check = [&](const char *name, int layer, size_t count, double tolerance) {
        EXPECT_LE(relative_distance(found + offset, expected.data() + offset, count),
                  slack * tolerance)
            << name << " of layer " << layer << ", isa " << static_cast<int>(isa);
        offset += count;
    };
    for (int l = 0; l < shape.layers; ++l) {
        check("input weight", l, 4 * H * (l == 0 ? static_cast<size_t>(shape.features) : H),
              weight_tolerance);
        check("hidden weight", l, 4 * H * H, weight_tolerance);
        check("input bias", l, 4 * H, bias_tolerance);
        check("hidden bias", l, 4 * H, bias_tolerance);
    }
    check("head weight", shape.layers, H, weight_tolerance);
    check("head bias", shape.layers, 1, weight_tolerance);
}

void expect_step_equals_float64(const reference::Problem &problem,
                                const LstmCpuTrainOptions &options, int64_t step,
                                double slack = 1) {
    const reference::StepResult expected = reference::TrainStep(problem, options, step).run();
    for (const LstmCpuIsa isa : isas()) {
        rp::LstmCpuTrainer trainer(options, data_of(problem), isa);
        State state(problem);
        float loss = 0;
        trainer.train(state.view(), step, 1, &loss);
        EXPECT_NEAR(loss, expected.loss, slack * loss_tolerance * expected.loss);
        expect_gradient_equals(trainer.gradient(), expected.gradient, options.shape, isa, slack);
        for (size_t u = 0; u < expected.running_mean.size(); ++u) {
            EXPECT_NEAR(state.running_mean[u], expected.running_mean[u], statistics_tolerance);
            EXPECT_NEAR(state.running_var[u], expected.running_var[u], statistics_tolerance);
        }
        for (size_t p = 0; p < expected.parameters.size(); ++p) {
            // Adam's first step is the learning rate times g / (|g| + eps): where the gradient is
            // too small to be known in float32, it is known no better.
            if (std::fabs(expected.gradient[p]) > 1e-4) {
                EXPECT_NEAR(state.parameters[p], expected.parameters[p], 1e-7) << p;
            }
        }
    }
}

TEST(LstmCpuTrain, default_step_equals_float64) {
    const reference::Problem problem(default_shape, 140);
    expect_step_equals_float64(problem, make_options(default_shape, 64), 1);
}

TEST(LstmCpuTrain, ragged_last_batch_equals_float64) {
    const reference::Problem problem(default_shape, 140);
    expect_step_equals_float64(problem, make_options(default_shape, 64), 2); // 12 rows
    expect_step_equals_float64(problem, make_options(default_shape, 65), 5); // 10 rows, epoch 1
}

TEST(LstmCpuTrain, two_rows_equal_float64) {
    const reference::Problem problem({4, 5, 16, 2}, 40);
    expect_step_equals_float64(problem, make_options(problem.shape, 2), 7);
}

TEST(LstmCpuTrain, odd_shapes_equal_float64) {
    for (const LstmCpuShape &shape :
         {LstmCpuShape{3, 9, 20, 3}, LstmCpuShape{1, 1, 1, 1}, LstmCpuShape{5, 4, 33, 4},
          LstmCpuShape{32, 17, 8, 2}, LstmCpuShape{17, 2, 100, 1}}) {
        const reference::Problem problem(shape, 90);
        expect_step_equals_float64(problem, make_options(shape, 70), 0, odd_shape_slack);
        expect_step_equals_float64(problem, make_options(shape, 33, 0.0f), 1, odd_shape_slack);
    }
}

std::vector<float> train(const reference::Problem &problem, LstmCpuTrainOptions options,
                         int32_t threads, LstmCpuIsa isa, std::vector<int64_t> calls) {
    options.threads = threads;
    rp::LstmCpuTrainer trainer(options, data_of(problem), isa);
    State state(problem);
    std::vector<float> losses(64);
    int64_t step = 0;
    for (const int64_t steps : calls) {
        trainer.train(state.view(), step, steps, losses.data() + step);
        step += steps;
    }
    losses.resize(static_cast<size_t>(step));
    for (const auto *part : {&state.parameters, &state.exp_avg, &state.exp_avg_sq,
                             &state.running_mean, &state.running_var}) {
        losses.insert(losses.end(), part->begin(), part->end());
    }
    return losses;
}

TEST(LstmCpuTrain, any_number_of_threads_gives_the_same_bits) {
    for (const LstmCpuShape &shape : {default_shape, LstmCpuShape{3, 6, 21, 3}}) {
        const reference::Problem problem(shape, 700);
        const LstmCpuTrainOptions options = make_options(shape, 300);
        for (const LstmCpuIsa isa : isas()) {
            const std::vector<float> expected = train(problem, options, 1, isa, {4});
            for (const int32_t threads : {2, 3, 7, 16}) {
                EXPECT_EQ(train(problem, options, threads, isa, {4}), expected)
                    << threads << " threads, isa " << static_cast<int>(isa);
            }
        }
    }
}

TEST(LstmCpuTrain, steps_in_one_call_or_many_give_the_same_bits) {
    const reference::Problem problem(default_shape, 200);
    const LstmCpuTrainOptions options = make_options(default_shape, 64);
    const LstmCpuIsa isa = rp::lstm_cpu_best_isa();
    EXPECT_EQ(train(problem, options, 2, isa, {6}), train(problem, options, 2, isa, {1, 3, 2}));
}

TEST(LstmCpuTrain, instruction_sets_agree) {
    const reference::Problem problem(default_shape, 512);
    const LstmCpuTrainOptions options = make_options(default_shape, 256);
    const std::vector<float> expected = train(problem, options, 2, LstmCpuIsa::portable, {3});
    for (const LstmCpuIsa isa : isas()) {
        const std::vector<float> found = train(problem, options, 2, isa, {3});
        for (size_t i = 0; i < 3; ++i) {
            EXPECT_NEAR(found[i], expected[i], 1e-5 * expected[i]); // three Adam steps apart
        }
    }
}

TEST(LstmCpuTrain, loss_falls_on_a_learnable_problem) {
    reference::Problem problem(default_shape, 512);
    for (size_t row = 0; row < problem.targets.size(); ++row) {
        problem.targets[row] = std::tanh(problem.features[row * 4]);
    }
    LstmCpuTrainOptions options = make_options(default_shape, 256);
    options.threads = 2;
    rp::LstmCpuTrainer trainer(options, data_of(problem));
    State state(problem);
    std::vector<float> losses(100);
    trainer.train(state.view(), 0, 100, losses.data());
    EXPECT_LT(losses.back(), 0.25f * losses.front());
}

} // namespace
