// Checkpoints: what was saved comes back, and no damaged file is believed.
#include <csignal>
#include <cstring>
#include <sys/resource.h>
#include <unistd.h>

#include "fixture.h"

namespace {

class CheckpointTest : public testing::Test {
  protected:
    CheckpointTest() : data_(200) {
        trainer_ = make_trainer(options_with("cpu-fused", 64), data_);
        run_steps(trainer_.get(), 5);
        path_ = folder_.file("model.safetensors");
        const rp_metadata metadata[] = {{"scaler.mean", "[1,2]"}, {"note", "quote \" \\ \n end"}};
        EXPECT_RP_OK(rp_trainer_save(trainer_.get(), path_.c_str(), metadata, 2));
        bytes_ = read_file(path_);
    }

    // Loads `bytes` as a file and returns the refusal; fails the test if it was accepted.
    std::string refusal(const std::string &bytes) {
        const std::string path = folder_.file("damaged.safetensors");
        write_file(path, bytes);
        rp_checkpoint *checkpoint = nullptr;
        const rp_status status = rp_checkpoint_load(&checkpoint, path.c_str());
        EXPECT_EQ(status, RP_ERROR_FORMAT);
        EXPECT_EQ(checkpoint, nullptr);
        rp_checkpoint_free(checkpoint);
        return rp_last_error();
    }

    // The file with `from` replaced by the equally long `to` in its header.
    std::string edited(const std::string &from, const std::string &to) const {
        std::string bytes = bytes_;
        const size_t at = bytes.find(from);
        EXPECT_NE(at, std::string::npos) << from;
        EXPECT_EQ(from.size(), to.size());
        return bytes.replace(at, to.size(), to);
    }

    static bool contains(const std::string &text, const std::string &part) {
        return text.find(part) != std::string::npos;
    }

    Data data_;
    Folder folder_;
    Trainer trainer_;
    std::string path_, bytes_;
};

TEST_F(CheckpointTest, load_returns_what_was_saved) {
    rp_checkpoint *loaded = nullptr;
    ASSERT_RP_OK(rp_checkpoint_load(&loaded, path_.c_str()));
    const Checkpoint checkpoint(loaded);
    EXPECT_STREQ(rp_checkpoint_metadata(loaded, "scaler.mean"), "[1,2]");
    EXPECT_STREQ(rp_checkpoint_metadata(loaded, "note"), "quote \" \\ \n end");
    EXPECT_EQ(rp_checkpoint_metadata(loaded, "absent"), nullptr);
    rp_model_options model;
    ASSERT_RP_OK(rp_checkpoint_model(&model, loaded));
    EXPECT_EQ(model.hidden, 64);
    const std::string again = folder_.file("again.safetensors");
    ASSERT_RP_OK(rp_checkpoint_save(loaded, again.c_str(), nullptr, 0));
    EXPECT_EQ(read_file(again), bytes_);
}

TEST_F(CheckpointTest, every_truncation_is_refused) {
    for (size_t size = 0; size < bytes_.size(); size += size < 5000 ? 97 : 20011) {
        refusal(bytes_.substr(0, size));
    }
    EXPECT_TRUE(contains(refusal(bytes_ + "x"), "trailing bytes"));
}

TEST_F(CheckpointTest, every_flipped_bit_is_refused) {
    for (size_t at = 0; at < bytes_.size(); at += at < 6000 ? 53 : 9973) {
        std::string bytes = bytes_;
        bytes[at] = static_cast<char>(bytes[at] ^ 4);
        refusal(bytes);
    }
}

TEST_F(CheckpointTest, damage_is_named) {
    EXPECT_TRUE(
        contains(refusal(edited("\"checkpoint.version\":\"1\"", "\"checkpoint.version\":\"7\"")),
                 "version is 7"));
    EXPECT_TRUE(contains(refusal(edited("\"model.hidden\":\"64\"", "\"model.hidden\":\"65\"")),
                         "checksum"));
    EXPECT_TRUE(contains(refusal(edited("[1,64]", "[1,46]")), "data_offsets"));
    EXPECT_TRUE(contains(refusal(edited("\"F32\"", "\"F64\"")), "dtype"));
    EXPECT_TRUE(contains(refusal(edited("head.bias", "head.bia\\")), "header byte"));
    EXPECT_TRUE(contains(refusal(edited("head.weight\":", "head.bias\":  ")), "twice"));
    std::string huge = bytes_;
    std::memset(huge.data(), 0x7f, 8);
    EXPECT_TRUE(contains(refusal(huge), "header length"));
    EXPECT_TRUE(contains(refusal("date,open,high,low,close\n"), "header length"));
}

TEST_F(CheckpointTest, missing_file_names_path_and_reason) {
    rp_checkpoint *checkpoint = nullptr;
    EXPECT_EQ(rp_checkpoint_load(&checkpoint, "/nonexistent/model"), RP_ERROR_FILE);
    EXPECT_TRUE(contains(rp_last_error(), "/nonexistent/model"));
    EXPECT_TRUE(contains(rp_last_error(), "No such file"));
    EXPECT_EQ(rp_checkpoint_load(&checkpoint, folder_.path.c_str()), RP_ERROR_FILE);
}

TEST_F(CheckpointTest, failed_save_leaves_the_old_file_and_nothing_else) {
    struct rlimit old {};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    const struct rlimit small = {100000, old.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0); // every write past 100,000 bytes fails
    const rp_status status = rp_trainer_save(trainer_.get(), path_.c_str(), nullptr, 0);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    EXPECT_EQ(status, RP_ERROR_FILE);
    EXPECT_TRUE(contains(rp_last_error(), "File too large"));
    EXPECT_EQ(read_file(path_), bytes_);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path), {}), 1);
}

TEST_F(CheckpointTest, resume_with_other_options_is_refused) {
    rp_checkpoint *loaded = nullptr;
    ASSERT_RP_OK(rp_checkpoint_load(&loaded, path_.c_str()));
    const Checkpoint checkpoint(loaded);
    const Trainer other = make_trainer(options_with("cpu-fused", 32), data_);
    EXPECT_EQ(rp_trainer_resume(other.get(), loaded), RP_ERROR_ARGUMENT);
    EXPECT_TRUE(contains(rp_last_error(), "batch"));
}

TEST_F(CheckpointTest, reserved_metadata_is_refused) {
    const rp_metadata metadata[] = {{"model.hidden", "3"}};
    EXPECT_EQ(rp_trainer_save(trainer_.get(), path_.c_str(), metadata, 1), RP_ERROR_ARGUMENT);
}

TEST(NullHandles, are_errors_not_crashes) {
    EXPECT_EQ(rp_trainer_run(nullptr, 1, nullptr), RP_ERROR_ARGUMENT);
    EXPECT_EQ(rp_trainer_create(nullptr, nullptr, nullptr), RP_ERROR_ARGUMENT);
    EXPECT_EQ(rp_checkpoint_load(nullptr, "x"), RP_ERROR_ARGUMENT);
    EXPECT_EQ(rp_predictor_run(nullptr, nullptr, nullptr, 0, nullptr, 0), RP_ERROR_ARGUMENT);
    EXPECT_EQ(rp_checkpoint_metadata(nullptr, "x"), nullptr);
    rp_trainer_free(nullptr);
    rp_checkpoint_free(nullptr);
    rp_predictor_free(nullptr);
}

TEST(Model, default_has_51265_parameters) {
    rp_model_options options;
    rp_model_options_init(&options);
    int64_t count = 0;
    ASSERT_RP_OK(rp_model_parameter_count(&count, &options));
    EXPECT_EQ(count, 51265);
}

} // namespace
