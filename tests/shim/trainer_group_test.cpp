// Many trainers at once, for the configurations that train side by side: together equals alone.
#include "fixture.h"

namespace {

class TrainerGroupTest : public testing::TestWithParam<const char *> {
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

// Trainers 0, 1, 2 share the first data set, 3 and 4 the second; all seeds and rates differ.
struct Group {
    Data data[2]{Data(530), Data(420)};
    std::vector<rp_trainer_options> options;
    std::vector<Trainer> owned;
    std::vector<rp_trainer *> trainers;

    explicit Group(const char *configuration) {
        for (uint64_t i = 0; i < 5; ++i) {
            options.push_back(options_with(configuration, 64));
            options.back().model.hidden = 32;
            options.back().seed = 7 + i;
            options.back().learning_rate = 1e-3 * static_cast<double>(1 + i);
        }
        trainers.resize(5);
        EXPECT_RP_OK(rp_trainers_create(trainers.data(), options.data(), 3, &data[0].view));
        EXPECT_RP_OK(rp_trainers_create(trainers.data() + 3, options.data() + 3, 2, &data[1].view));
        for (rp_trainer *trainer : trainers) {
            owned.emplace_back(trainer);
        }
    }
    Trainer alone(size_t i) const { return make_trainer(options[i], data[i >= 3]); }
};

TEST_P(TrainerGroupTest, together_equals_alone) {
    const Folder folder;
    const Group one(GetParam()), several(GetParam());
    for (const int64_t steps : {3, 11, 6}) { // across ends of epochs, which differ
        ASSERT_RP_OK(rp_trainers_run(one.trainers.data(), 5, steps, 1));
        ASSERT_RP_OK(rp_trainers_run(several.trainers.data(), 5, steps, 3));
    }
    for (size_t i = 0; i < 5; ++i) {
        const Trainer alone = one.alone(i);
        run_steps(alone.get(), 20);
        const std::string bytes = saved_bytes(alone.get(), folder);
        EXPECT_EQ(saved_bytes(one.trainers[i], folder), bytes) << "trainer " << i;
        EXPECT_EQ(saved_bytes(several.trainers[i], folder), bytes) << "trainer " << i;
    }
}

TEST_P(TrainerGroupTest, a_trainer_may_leave_and_others_go_on) {
    const Folder folder;
    Group group(GetParam());
    ASSERT_RP_OK(rp_trainers_run(group.trainers.data(), 5, 5, 2));
    rp_trainer *const others[] = {group.trainers[4], group.trainers[0]};
    group.owned.erase(group.owned.begin() + 1, group.owned.begin() + 3);
    ASSERT_RP_OK(rp_trainers_run(others, 2, 6, 2));
    for (const size_t i : {0u, 4u}) {
        const Trainer alone = group.alone(i);
        run_steps(alone.get(), 11);
        EXPECT_EQ(saved_bytes(group.trainers[i], folder), saved_bytes(alone.get(), folder));
    }
}

TEST_P(TrainerGroupTest, a_failure_is_one_trainers_own) {
    const Data data(500);
    const Folder folder;
    rp_trainer_options options[3] = {options_with(GetParam(), 64), options_with(GetParam(), 64),
                                     options_with(GetParam(), 64)};
    for (rp_trainer_options &each : options) {
        each.model.hidden = 32;
    }
    options[1].learning_rate = 1e38;
    rp_trainer *trainers[3];
    ASSERT_RP_OK(rp_trainers_create(trainers, options, 3, &data.view));
    const Trainer owned[3] = {Trainer(trainers[0]), Trainer(trainers[1]), Trainer(trainers[2])};
    for (int i = 0; i < 4; ++i) {
        ASSERT_RP_OK(rp_trainers_run(trainers, 3, 10, 2));
    }
    EXPECT_NE(std::string(rp_trainer_failure(trainers[1])).find("the loss of epoch 1, step"),
              std::string::npos);
    const Trainer alone = make_trainer(options[0], data);
    run_steps(alone.get(), 40);
    EXPECT_EQ(saved_bytes(trainers[0], folder), saved_bytes(alone.get(), folder));
    EXPECT_EQ(saved_bytes(trainers[2], folder), saved_bytes(alone.get(), folder));
}

INSTANTIATE_TEST_SUITE_P(configurations, TrainerGroupTest,
                         testing::Values("cpu-fused", "gpu-fused"),
                         [](const testing::TestParamInfo<const char *> &configuration) {
                             return std::string(configuration.param).substr(0, 3);
                         });

TEST(TrainerGroup, data_that_can_not_be_shared_is_refused) {
    const Data data(100);
    rp_trainer_options options[2] = {options_with("cpu-fused", 32), options_with("cpu-fused", 32)};
    options[1].target_unit = 0.5;
    rp_trainer *trainers[2] = {nullptr, nullptr};
    EXPECT_EQ(rp_trainers_create(trainers, options, 2, &data.view), RP_ERROR_ARGUMENT);
    EXPECT_EQ(trainers[0], nullptr);
    EXPECT_NE(std::string(rp_last_error()).find("trainers 0 and 1"), std::string::npos);
}

TEST(TrainerGroup, at_once_is_the_threads_given) {
    rp_trainer_options options = options_with("cpu-fused", 32);
    options.threads = 3;
    int64_t count = 0;
    ASSERT_RP_OK(rp_trainers_at_once(&count, &options));
    EXPECT_EQ(count, 3);
    options.configuration = "cpu";
    ASSERT_RP_OK(rp_trainers_at_once(&count, &options));
    EXPECT_EQ(count, 1);
}

} // namespace
