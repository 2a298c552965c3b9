// The predictor's own forward pass against libtorch's.
#include "fixture.h"

namespace {

void expect_predictor_equals_reference(const rp_trainer_options &options, const Data &data) {
    const Trainer trainer = make_trainer(options, data);
    ASSERT_TRUE(trainer);
    run_steps(trainer.get(), 8);
    rp_checkpoint *snapshot = nullptr;
    ASSERT_RP_OK(rp_trainer_snapshot(&snapshot, trainer.get()));
    const Checkpoint checkpoint(snapshot);
    rp_predictor *made = nullptr;
    ASSERT_RP_OK(rp_predictor_create(&made, snapshot, 2));
    const Predictor predictor(made);

    const auto W = static_cast<size_t>(data.view.windows);
    std::vector<float> returns(W), reference(W), single(W);
    ASSERT_RP_OK(rp_predictor_run(returns.data(), made, data.view.features, data.view.rows,
                                  data.view.window_ends, data.view.windows));
    ASSERT_RP_OK(rp_reference_predict(reference.data(), snapshot, "cpu", data.view.features,
                                      data.view.rows, data.view.window_ends, data.view.windows));
    for (size_t w = 0; w < W; ++w) {
        ASSERT_RP_OK(rp_predictor_run(&single[w], made, data.view.features, data.view.rows,
                                      data.view.window_ends + w, 1));
    }
    float largest = 0;
    for (const float value : reference) {
        largest = std::max(largest, std::fabs(value));
    }
    for (size_t w = 0; w < W; ++w) {
        // float32 sums of up to 128 terms over 20 steps, against the largest prediction.
        EXPECT_NEAR(returns[w], reference[w], 2e-6f * largest) << "window " << w;
        EXPECT_NEAR(single[w], reference[w], 2e-6f * largest) << "window " << w;
    }
}

TEST(Predictor, default_model_equals_libtorch) {
    if (const std::string reason = why_no_libtorch(); !reason.empty()) {
        GTEST_SKIP() << reason;
    }
    const Data data(517);
    expect_predictor_equals_reference(options_with("cpu", 64), data);
}

TEST(Predictor, odd_model_equals_libtorch) {
    if (const std::string reason = why_no_libtorch(); !reason.empty()) {
        GTEST_SKIP() << reason;
    }
    const Data data(61, 3, 7);
    rp_trainer_options options = options_with("cpu", 16);
    options.model.features = 3;
    options.model.time_steps = 7;
    options.model.hidden = 20;
    options.model.layers = 3;
    expect_predictor_equals_reference(options, data);
}

TEST(Predictor, window_out_of_range_is_refused) {
    const Data data(64);
    const Trainer trainer = make_trainer(options_with("cpu-fused", 32), data);
    rp_checkpoint *snapshot = nullptr;
    ASSERT_RP_OK(rp_trainer_snapshot(&snapshot, trainer.get()));
    const Checkpoint checkpoint(snapshot);
    rp_predictor *made = nullptr;
    ASSERT_RP_OK(rp_predictor_create(&made, snapshot, 1));
    const Predictor predictor(made);
    const int32_t early = 18;
    float out = 0;
    EXPECT_EQ(rp_predictor_run(&out, made, data.view.features, data.view.rows, &early, 1),
              RP_ERROR_ARGUMENT);
}

} // namespace
