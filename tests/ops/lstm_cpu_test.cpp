// The CPU forward pass of every instruction set against float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "lstm_reference.h"

namespace {

using rp::LstmCpu;
using rp::LstmCpuIsa;
using rp::LstmCpuShape;

constexpr float norm_eps = 1e-5f, negative_slope = 0.01f;
constexpr LstmCpuShape default_shape = {4, 20, 64, 2};
// Against the largest prediction: float32 sums of at most 128 terms over 20 steps; libtorch's own
// distance from float64 is as large.
constexpr double prediction_tolerance = 1e-6;
// With few units the head's terms nearly cancel: predictions are a tenth of them.
constexpr double cancelling_tolerance = 3e-6;

std::vector<LstmCpuIsa> isas() {
    std::vector<LstmCpuIsa> found = {LstmCpuIsa::portable};
    for (const LstmCpuIsa isa : {LstmCpuIsa::avx2, LstmCpuIsa::avx512}) {
        if (isa <= rp::lstm_cpu_best_isa()) {
            found.push_back(isa);
        }
    }
    return found;
}

LstmCpu make_model(const reference::Problem &problem, LstmCpuIsa isa) {
    return LstmCpu(problem.shape, problem.parameters.data(), problem.running_mean.data(),
                   problem.running_var.data(), norm_eps, negative_slope, isa);
}

std::vector<float> predict(const LstmCpu &model, const reference::Problem &problem, size_t first,
                           size_t count) {
    LstmCpu::Scratch scratch(model);
    std::vector<float> out(count);
    model.run(out.data(), scratch, problem.features.data(), problem.window_ends.data() + first,
              static_cast<int64_t>(count));
    return out;
}

void expect_predictions_equal_float64(const LstmCpuShape &shape, size_t windows, double tolerance) {
    const reference::Problem problem(shape, static_cast<int>(windows));
    std::vector<double> expected(windows);
    double largest = 0;
    for (size_t w = 0; w < windows; ++w) {
        expected[w] = reference::predict(problem, w, norm_eps, negative_slope);
        largest = std::max(largest, std::fabs(expected[w]));
    }
    for (const LstmCpuIsa isa : isas()) {
        const LstmCpu model = make_model(problem, isa);
        const std::vector<float> batch = predict(model, problem, 0, windows);
        for (size_t w = 0; w < windows; ++w) {
            const float single = predict(model, problem, w, 1)[0];
            EXPECT_NEAR(batch[w], expected[w], tolerance * largest)
                << "window " << w << " isa " << static_cast<int>(isa);
            EXPECT_NEAR(single, expected[w], tolerance * largest)
                << "window " << w << " alone, isa " << static_cast<int>(isa);
        }
    }
}

TEST(LstmCpu, default_shape_equals_float64) {
    expect_predictions_equal_float64(default_shape, 131, prediction_tolerance);
}

TEST(LstmCpu, odd_shapes_equal_float64) {
    expect_predictions_equal_float64({3, 7, 20, 3}, 67, cancelling_tolerance);
    expect_predictions_equal_float64({1, 1, 1, 1}, 33, cancelling_tolerance);
    expect_predictions_equal_float64({5, 3, 33, 4}, 40, cancelling_tolerance);
    expect_predictions_equal_float64({32, 64, 17, 2}, 20, cancelling_tolerance);
    expect_predictions_equal_float64({4, 6, 112, 1}, 20, cancelling_tolerance);
}

TEST(LstmCpu, largest_hidden_size_equals_float64) {
    expect_predictions_equal_float64({4, 3, 512, 2}, 2, cancelling_tolerance);
}

TEST(LstmCpu, every_count_of_windows_writes_that_many_and_the_same_bits) {
    const reference::Problem problem(default_shape, 70);
    for (const LstmCpuIsa isa : isas()) {
        const LstmCpu model = make_model(problem, isa);
        LstmCpu::Scratch scratch(model);
        const std::vector<float> all = predict(model, problem, 0, 70);
        for (int64_t count = 0; count <= 70; ++count) {
            std::vector<float> out(71, -7.0f);
            model.run(out.data(), scratch, problem.features.data(), problem.window_ends.data(),
                      count);
            for (size_t w = 0; w < 71; ++w) {
                const float expected = w < static_cast<size_t>(count) ? all[w] : -7.0f;
                EXPECT_EQ(out[w], expected) << count << " " << w;
            }
        }
    }
}

TEST(LstmCpu, saturated_gates_stay_finite) {
    reference::Problem problem(default_shape, 40);
    for (float &weight : problem.parameters) {
        weight *= 1e4f;
    }
    for (const LstmCpuIsa isa : isas()) {
        const LstmCpu model = make_model(problem, isa);
        for (const float value : predict(model, problem, 0, 40)) {
            EXPECT_TRUE(std::isfinite(value));
        }
    }
}

TEST(LstmCpu, not_a_number_is_passed_on) {
    reference::Problem problem(default_shape, 40);
    problem.features[0] = NAN; // of window 0 only
    for (const LstmCpuIsa isa : isas()) {
        const LstmCpu model = make_model(problem, isa);
        const std::vector<float> batch = predict(model, problem, 0, 40);
        EXPECT_TRUE(std::isnan(batch[0])) << static_cast<int>(isa);
        EXPECT_TRUE(std::isfinite(batch[1])) << static_cast<int>(isa);
        EXPECT_TRUE(std::isnan(predict(model, problem, 0, 1)[0])) << static_cast<int>(isa);
    }
}

TEST(LstmCpu, threads_share_one_model) {
    const reference::Problem problem(default_shape, 200);
    const LstmCpu model = make_model(problem, rp::lstm_cpu_best_isa());
    const std::vector<float> expected = predict(model, problem, 0, 200);
    std::vector<float> found[3];
    std::vector<std::thread> threads;
    for (std::vector<float> &out : found) {
        threads.emplace_back([&] { out = predict(model, problem, 0, 200); });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    for (const std::vector<float> &out : found) {
        EXPECT_EQ(out, expected);
    }
}

TEST(LstmCpu, environment_lowers_the_instruction_set) {
    ASSERT_EQ(setenv("RP_ISA", "portable", 1), 0);
    EXPECT_EQ(rp::lstm_cpu_best_isa(), LstmCpuIsa::portable);
    ASSERT_EQ(setenv("RP_ISA", "avx2", 1), 0);
    EXPECT_LE(rp::lstm_cpu_best_isa(), LstmCpuIsa::avx2);
    ASSERT_EQ(unsetenv("RP_ISA"), 0);
}

} // namespace
