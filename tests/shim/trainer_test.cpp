// Training through rp.h, for every configuration that this machine can run.
#include <algorithm>

#include "fixture.h"

namespace {

class TrainerTest : public testing::TestWithParam<const char *> {
  protected:
    void SetUp() override {
        for (int32_t i = 0; i < rp_configuration_count(); ++i) {
            rp_configuration configuration;
            ASSERT_RP_OK(rp_configuration_describe(&configuration, i));
            if (std::string(configuration.name) == GetParam() && !configuration.available) {
                GTEST_SKIP() << GetParam() << ": " << configuration.reason;
            }
        }
    }
};

TEST_P(TrainerTest, run_falls_below_the_targets_variance) {
    const Data data(2000);
    const Trainer trainer = make_trainer(options_with(GetParam(), 100), data);
    const rp_progress progress = run_steps(trainer.get(), 20 * 20);
    EXPECT_EQ(progress.epoch, 20);
    EXPECT_EQ(progress.samples, 20 * 2000);
    EXPECT_LT(progress.loss, 0.5e-4); // the targets' variance is 1.04e-4, the noise's 0.04e-4
}

TEST_P(TrainerTest, same_seed_gives_the_same_bits) {
    const Data data(500);
    const Folder folder;
    std::string bytes[2];
    for (std::string &out : bytes) {
        const Trainer trainer = make_trainer(options_with(GetParam(), 64), data);
        run_steps(trainer.get(), 20);
        out = saved_bytes(trainer.get(), folder);
    }
    EXPECT_EQ(bytes[0], bytes[1]);
}

TEST_P(TrainerTest, another_seed_gives_other_bits) {
    const Data data(500);
    const Folder folder;
    rp_trainer_options options = options_with(GetParam(), 64);
    const Trainer first = make_trainer(options, data);
    options.seed = 2;
    const Trainer second = make_trainer(options, data);
    EXPECT_NE(saved_bytes(first.get(), folder), saved_bytes(second.get(), folder));
}

TEST_P(TrainerTest, resume_in_the_middle_equals_uninterrupted) {
    const Data data(500);
    const Folder folder;
    const rp_trainer_options options = options_with(GetParam(), 64);
    const Trainer whole = make_trainer(options, data);
    run_steps(whole.get(), 21);

    const Trainer before = make_trainer(options, data);
    run_steps(before.get(), 11); // the fourth step of the second epoch
    ASSERT_RP_OK(rp_trainer_save(before.get(), folder.file("middle").c_str(), nullptr, 0));
    rp_checkpoint *loaded = nullptr;
    ASSERT_RP_OK(rp_checkpoint_load(&loaded, folder.file("middle").c_str()));
    const Checkpoint checkpoint(loaded);
    const Trainer after = make_trainer(options, data);
    ASSERT_RP_OK(rp_trainer_resume(after.get(), checkpoint.get()));
    run_steps(after.get(), 10);
    EXPECT_EQ(saved_bytes(whole.get(), folder), saved_bytes(after.get(), folder));
}

TEST_P(TrainerTest, losses_agree_with_cpu) {
    if (const std::string reason = why_no_libtorch(); !reason.empty()) {
        GTEST_SKIP() << reason;
    }
    const Data data(700);
    double losses[2];
    const char *names[2] = {"cpu", GetParam()};
    for (int i = 0; i < 2; ++i) {
        const Trainer trainer = make_trainer(options_with(names[i], 128), data);
        losses[i] = run_steps(trainer.get(), 2 * 6).loss;
    }
    // One epoch of fp16 or TF32 operands against fp32; measured differences are below 1e-3.
    EXPECT_NEAR(losses[1] / losses[0], 1.0, 5e-3);
}

TEST_P(TrainerTest, odd_model_trains) {
    const Data data(300, 7, 9);
    rp_trainer_options options = options_with(GetParam(), 33);
    options.model.features = 7;
    options.model.time_steps = 9;
    options.model.hidden = 32;
    options.model.layers = 1;
    const Trainer trainer = make_trainer(options, data);
    ASSERT_TRUE(trainer);
    const rp_progress progress = run_steps(trainer.get(), 10 * 10);
    EXPECT_LT(progress.loss, 1.1e-4);
}

TEST_P(TrainerTest, last_batch_of_one_is_left_out) {
    const Data data(129);
    const Trainer trainer = make_trainer(options_with(GetParam(), 64), data);
    const rp_progress progress = run_steps(trainer.get(), 2);
    EXPECT_EQ(progress.steps_per_epoch, 2);
    EXPECT_EQ(progress.epoch, 1);
    EXPECT_EQ(progress.samples, 128);
}

std::string test_name(const testing::TestParamInfo<const char *> &configuration) {
    std::string name = configuration.param;
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(configurations, TrainerTest,
                         testing::Values("cpu", "cpu-fused", "gpu", "gpu-kernel", "gpu-graph",
                                         "gpu-fused"),
                         test_name);

TEST(TrainerOptions, bad_values_are_refused_by_name) {
    const Data data(100);
    const auto message = [&data](auto change) -> std::string {
        rp_trainer_options options = options_with("cpu-fused", 32);
        change(options);
        rp_trainer *trainer = nullptr;
        EXPECT_EQ(rp_trainer_create(&trainer, &options, &data.view), RP_ERROR_ARGUMENT);
        EXPECT_EQ(trainer, nullptr);
        return rp_last_error();
    };
    EXPECT_NE(message([](auto &o) { o.batch = 1; }).find("batch is 1"), std::string::npos);
    EXPECT_NE(message([](auto &o) { o.version = 9; }).find("version 9"), std::string::npos);
    EXPECT_NE(message([](auto &o) { o.learning_rate = -1; }).find("learning_rate"),
              std::string::npos);
    EXPECT_NE(message([](auto &o) { o.model.hidden = 0; }).find("hidden"), std::string::npos);
    EXPECT_NE(message([](auto &o) { o.model.dropout = NAN; }).find("dropout"), std::string::npos);
    if (why_no_libtorch().empty()) { // which knows the names
        EXPECT_NE(message([](auto &o) { o.configuration = "tpu"; }).find("tpu"), std::string::npos);
    }
    EXPECT_NE(message([](auto &o) { o.precision = "fp8"; }).find("fp8"), std::string::npos);
    EXPECT_NE(message([](auto &o) { o.target_unit = 0.3; }).find("target_unit"), std::string::npos);
}

TEST(TrainerData, bad_rows_are_refused_by_place) {
    Data data(100);
    const rp_trainer_options options = options_with("cpu-fused", 32);
    rp_trainer *trainer = nullptr;
    data.features[4 * 50 + 2] = NAN;
    EXPECT_EQ(rp_trainer_create(&trainer, &options, &data.view), RP_ERROR_ARGUMENT);
    EXPECT_NE(std::string(rp_last_error()).find("feature 2 of row 50"), std::string::npos);
    data.features[4 * 50 + 2] = 0;
    data.window_ends[3] = 4;
    EXPECT_EQ(rp_trainer_create(&trainer, &options, &data.view), RP_ERROR_ARGUMENT);
    EXPECT_NE(std::string(rp_last_error()).find("window 3 ends at row 4"), std::string::npos);
}

TEST(TrainerRun, diverging_loss_is_named_and_not_saved) {
    const Data data(500);
    const Folder folder;
    rp_trainer_options options = options_with("cpu-fused", 64);
    options.learning_rate = 1e38;
    const Trainer trainer = make_trainer(options, data);
    rp_status status = RP_OK;
    for (int i = 0; i < 20 && status == RP_OK; ++i) {
        status = rp_trainer_run(trainer.get(), 100, nullptr);
    }
    EXPECT_EQ(status, RP_ERROR_NUMERIC);
    EXPECT_NE(std::string(rp_last_error()).find("epoch 1, step"), std::string::npos);
    EXPECT_NE(rp_trainer_save(trainer.get(), folder.file("bad").c_str(), nullptr, 0), RP_OK);
    EXPECT_FALSE(std::filesystem::exists(folder.file("bad")));
}

TEST(TrainerStepWindows, an_epoch_is_a_permutation) {
    const Data data(500);
    const Trainer trainer = make_trainer(options_with("cpu-fused", 64), data);
    std::vector<int> seen(500, 0);
    for (int64_t step = 8; step < 16; ++step) { // the second epoch
        int64_t windows[64], count = 0;
        ASSERT_RP_OK(rp_trainer_step_windows(windows, &count, 64, trainer.get(), step));
        for (int64_t i = 0; i < count; ++i) {
            ++seen[static_cast<size_t>(windows[i])];
        }
    }
    EXPECT_EQ(seen, std::vector<int>(500, 1));
}

} // namespace
