// Checkpoints whose checksum is right and whose content is not: what a hostile writer makes.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "checkpoint.h"
#include "guard.h"
#include "model.h"
#include "safetensors.h"

namespace {

rp_checkpoint small_checkpoint() {
    rp_checkpoint checkpoint;
    rp_model_options_init(&checkpoint.model);
    checkpoint.model.hidden = 2;
    checkpoint.model.layers = 1;
    checkpoint.state = rp::initial_state(checkpoint.model, 1);
    return checkpoint;
}

std::string refusal(const std::string &bytes) {
    try {
        rp::checkpoint_parse(bytes, "model");
    } catch (const rp::Error &failure) {
        EXPECT_EQ(failure.status, RP_ERROR_FORMAT);
        return failure.message;
    }
    ADD_FAILURE() << "it was read";
    return "";
}

// A file with this header and `size` bytes of tensors.
std::string file_of(const std::string &header, size_t size) {
    const uint64_t length = header.size();
    std::string file(sizeof length, '\0');
    std::memcpy(file.data(), &length, sizeof length);
    return file + header + std::string(size, '\0');
}

std::string tensor(const std::string &name, const std::string &shape, const std::string &offsets) {
    return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
}

} // namespace

TEST(DamagedCheckpoint, sound_one_is_read) {
    const std::string bytes = rp::checkpoint_format(small_checkpoint(), {});
    EXPECT_EQ(rp::checkpoint_format(rp::checkpoint_parse(bytes, "model"), {}), bytes);
}

TEST(DamagedCheckpoint, nan_or_infinite_weight_is_named) {
    for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        rp_checkpoint checkpoint = small_checkpoint();
        checkpoint.state.parameters[3] = value;
        EXPECT_EQ(refusal(rp::checkpoint_format(checkpoint, {})),
                  "model: tensor lstm.weight_ih_l0 contains NaN or infinity");
    }
}

TEST(DamagedCheckpoint, overlapping_tensors_are_named) {
    const std::string header =
        "{" + tensor("a", "[2]", "[0,8]") + "," + tensor("b", "[2]", "[4,12]") + "}";
    EXPECT_NE(refusal(file_of(header, 12)).find("tensor b begins at byte 4, expected 8"),
              std::string::npos);
}

TEST(DamagedCheckpoint, overflowing_offsets_and_shapes_are_refused) {
    const std::string large = "18446744073709551616";
    EXPECT_NE(refusal(file_of("{" + tensor("a", "[2]", "[0," + large + "]") + "}", 8))
                  .find("a number is too large"),
              std::string::npos);
    EXPECT_NE(refusal(file_of("{" + tensor("a", "[4294967296,4294967296]", "[0,8]") + "}", 8))
                  .find("shape overflows"),
              std::string::npos);
    EXPECT_NE(
        refusal(
            file_of("{" + tensor("a", "[2]", "[9223372036854775800,9223372036854775807]") + "}", 8))
            .find("data_offsets do not match"),
        std::string::npos);
}

TEST(DamagedCheckpoint, pipe_is_refused_and_not_waited_for) {
    const std::string path =
        (std::filesystem::temp_directory_path() / "rp-damaged-checkpoint-pipe").string();
    std::filesystem::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_THROW(rp::file_read(path), rp::Error);
    std::filesystem::remove(path);
}
