// The checkpoint is replaced by a map here: these lines are all that the module asks of it.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

extern "C" {
#include "dataset/dataset_metadata.h"
}

struct rp_checkpoint {
    std::map<std::string, std::string> lines;
};

extern "C" const char *rp_checkpoint_metadata(const rp_checkpoint *checkpoint, const char *key) {
    auto found = checkpoint->lines.find(key);
    return found == checkpoint->lines.end() ? nullptr : found->second.c_str();
}

extern "C" rp_status rp_checkpoint_model(rp_model_options *, const rp_checkpoint *) {
    return RP_ERROR_ARGUMENT;
}

extern "C" const char *rp_last_error(void) {
    return "";
}

extern "C" bool dataset_build(dataset *, const market *, const dataset_options *, const scaler *,
                              error *) {
    return false;
}

namespace {

dataset_metadata example() {
    dataset_metadata m = {};
    for (int i = 0; i < DATASET_FEATURES; i++) {
        m.scaler.mean[i] = 0.1 * (i + 1) / 3;
        m.scaler.sd[i] = std::sqrt(2.0 + i);
    }
    m.scaler.clip = 5;
    m.options.time_steps = 20;
    m.options.train_fraction = 0.8;
    m.options.validation_fraction = 0.1;
    m.options.embargo_days = 3;
    m.train_last_date = 18992;
    m.test_first_date = 18993;
    snprintf(m.sha256, sizeof m.sha256, "%064d", 7);
    m.calibrated = true;
    m.intervals.quantile[0] = 1.0 / 3;
    m.intervals.quantile[1] = 2.0 / 3;
    m.intervals.held_out = true;
    return m;
}

rp_checkpoint saved(const dataset_metadata &m) {
    dataset_metadata_lines lines;
    dataset_metadata_write(&lines, &m);
    rp_checkpoint checkpoint;
    for (int64_t i = 0; i < lines.count; i++) {
        checkpoint.lines[lines.lines[i].key] = lines.lines[i].value;
    }
    return checkpoint;
}

TEST(DatasetMetadata, what_was_written_reads_back_bit_for_bit) {
    dataset_metadata m = example(), back;
    rp_checkpoint checkpoint = saved(m);
    error error = {};
    ASSERT_TRUE(dataset_metadata_read(&back, &checkpoint, &error)) << error.message;
    for (int i = 0; i < DATASET_FEATURES; i++) {
        EXPECT_EQ(back.scaler.mean[i], m.scaler.mean[i]);
        EXPECT_EQ(back.scaler.sd[i], m.scaler.sd[i]);
    }
    EXPECT_EQ(back.scaler.clip, m.scaler.clip);
    EXPECT_EQ(back.options.time_steps, 20);
    EXPECT_EQ(back.options.train_fraction, 0.8);
    EXPECT_EQ(back.options.validation_fraction, 0.1);
    EXPECT_EQ(back.options.embargo_days, 3);
    EXPECT_EQ(back.train_last_date, m.train_last_date);
    EXPECT_EQ(back.test_first_date, m.test_first_date);
    EXPECT_STREQ(back.sha256, m.sha256);
    EXPECT_TRUE(back.calibrated);
    EXPECT_TRUE(back.intervals.held_out);
    EXPECT_EQ(back.intervals.quantile[0], m.intervals.quantile[0]);
    EXPECT_EQ(back.intervals.quantile[1], m.intervals.quantile[1]);
}

TEST(DatasetMetadata, without_intervals_reads_back_uncalibrated) {
    dataset_metadata m = example(), back;
    m.calibrated = false;
    rp_checkpoint checkpoint = saved(m);
    error error = {};
    ASSERT_TRUE(dataset_metadata_read(&back, &checkpoint, &error)) << error.message;
    EXPECT_FALSE(back.calibrated);
}

TEST(DatasetMetadata, a_missing_line_is_named) {
    rp_checkpoint whole = saved(example());
    for (const auto &line : whole.lines) {
        if (line.first == "interval.quantile_80") {
            continue; // its absence means: not calibrated
        }
        rp_checkpoint checkpoint = whole;
        checkpoint.lines.erase(line.first);
        dataset_metadata back;
        error error = {};
        EXPECT_FALSE(dataset_metadata_read(&back, &checkpoint, &error));
        EXPECT_NE(std::string(error.message).find(line.first), std::string::npos)
            << line.first << ": " << error.message;
    }
}

TEST(DatasetMetadata, a_wrong_value_is_refused_by_name) {
    const std::multimap<std::string, std::string> wrong = {
        {"features", "[\"ret1\"]"},
        {"scaler.mean", "[1,2,3]"},
        {"scaler.sd", "[1,1,0,1]"},
        {"scaler.sd", "[1,1,nan,1]"},
        {"scaler.mean", "[1,2,3,4]x"},
        {"scaler.clip", "-1"},
        {"window.time_steps", "20.5"},
        {"window.time_steps", "0"},
        {"split.train_fraction", "1.5"},
        {"split.train_last_date", "2021-02-30"},
        {"split.test_first_date", "2001-01-01"},
        {"interval.quantile_95", "-1"},
        {"interval.calibration", "none"},
        {"data.sha256", std::string(65, 'a')},
    };
    for (const auto &line : wrong) {
        rp_checkpoint checkpoint = saved(example());
        checkpoint.lines[line.first] = line.second;
        dataset_metadata back;
        error error = {};
        EXPECT_FALSE(dataset_metadata_read(&back, &checkpoint, &error)) << line.first;
        EXPECT_NE(std::string(error.message).find(line.first), std::string::npos)
            << line.first << ": " << error.message;
    }
}

} // namespace
