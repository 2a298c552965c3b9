// A small made-up data set for the tests of rp.h, and a folder that disappears with the test.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "rp/rp.h"

#define EXPECT_RP_OK(call) EXPECT_EQ(call, RP_OK) << rp_last_error()
#define ASSERT_RP_OK(call) ASSERT_EQ(call, RP_OK) << rp_last_error()

struct TrainerFree {
    void operator()(rp_trainer *trainer) const { rp_trainer_free(trainer); }
};
struct CheckpointFree {
    void operator()(rp_checkpoint *checkpoint) const { rp_checkpoint_free(checkpoint); }
};
struct PredictorFree {
    void operator()(rp_predictor *predictor) const { rp_predictor_free(predictor); }
};
using Trainer = std::unique_ptr<rp_trainer, TrainerFree>;
using Checkpoint = std::unique_ptr<rp_checkpoint, CheckpointFree>;
using Predictor = std::unique_ptr<rp_predictor, PredictorFree>;

// Normal features; the target of a row is 0.01 times its first feature plus noise.
struct Data {
    std::vector<float> features, targets;
    std::vector<int32_t> window_ends;
    rp_data view;

    explicit Data(int64_t windows, int32_t F = 4, int32_t T = 20) {
        std::mt19937 generator(7);
        std::normal_distribution<float> normal;
        const int64_t rows = windows + T - 1;
        for (int64_t row = 0; row < rows; ++row) {
            for (int32_t f = 0; f < F; ++f) {
                features.push_back(normal(generator));
            }
            targets.push_back(0.01f * features[static_cast<size_t>(row * F)] +
                              0.002f * normal(generator));
        }
        for (int64_t w = 0; w < windows; ++w) {
            window_ends.push_back(static_cast<int32_t>(w + T - 1));
        }
        view = {features.data(), targets.data(), rows, window_ends.data(), windows};
    }
};

struct Folder {
    std::filesystem::path path;
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "rp-test-XXXXXX").string();
        path = mkdtemp(name.data());
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string file(const std::string &name) const { return (path / name).string(); }
};

inline rp_trainer_options options_with(const char *configuration, int64_t batch) {
    rp_trainer_options options;
    rp_trainer_options_init(&options);
    options.configuration = configuration;
    options.batch = batch;
    options.threads = 1;
    return options;
}

// Why this machine or build can't train with libtorch; "" when it can.
inline std::string why_no_libtorch() {
    for (int32_t i = 0; i < rp_configuration_count(); ++i) {
        rp_configuration configuration;
        EXPECT_RP_OK(rp_configuration_describe(&configuration, i));
        if (std::string(configuration.name) == "cpu") {
            return configuration.available ? "" : configuration.reason;
        }
    }
    return "no configuration cpu";
}

inline Trainer make_trainer(const rp_trainer_options &options, const Data &data) {
    rp_trainer *trainer = nullptr;
    EXPECT_RP_OK(rp_trainer_create(&trainer, &options, &data.view));
    return Trainer(trainer);
}

inline rp_progress run_steps(rp_trainer *trainer, int64_t steps) {
    rp_progress progress{};
    for (int64_t done = 0; done < steps;) { // rp_trainer_run stops at the end of an epoch
        const int64_t before = progress.step;
        EXPECT_RP_OK(rp_trainer_progress(trainer, &progress));
        const int64_t start = before == 0 ? progress.step : before;
        if (rp_trainer_run(trainer, steps - done, &progress) != RP_OK) {
            ADD_FAILURE() << rp_last_error();
            break;
        }
        done += progress.step - start;
    }
    return progress;
}

inline std::string read_file(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const std::string &path, const std::string &bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string saved_bytes(const rp_trainer *trainer, const Folder &folder) {
    const std::string path = folder.file("bytes.safetensors");
    EXPECT_RP_OK(rp_trainer_save(trainer, path.c_str(), nullptr, 0));
    return read_file(path);
}
