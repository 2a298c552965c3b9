// Checkpoint files. A quarter of the inputs is read as it is, the others with the checksum that
// fits them, so that what lies behind the checksum is reached too. What is accepted has finite
// weights, survives a round trip to the byte, and can be asked for its metadata and, when small,
// for a prediction.
#include "checkpoint.cpp" // its checksum()

#include "fuzz.h"

extern "C" {
#include "dataset/dataset_metadata.h"
}

namespace {

constexpr int32_t small_hidden = 8; // larger models are only read: a fuzzer's runs should be short

void run_once(const rp_checkpoint &checkpoint) {
    const rp_model_options &model = checkpoint.model;
    rp_predictor *predictor = nullptr;
    if (model.hidden > small_hidden) {
        return;
    }
    CLAIM(rp_predictor_create(&predictor, &checkpoint, 1) == RP_OK);
    const std::vector<float> features(static_cast<size_t>(model.time_steps * model.features), 0.5f);
    const int32_t end = model.time_steps - 1;
    float returned = 0;
    CLAIM(rp_predictor_run(&returned, predictor, features.data(), model.time_steps, &end, 1) ==
          RP_OK);
    rp_predictor_free(predictor);
}

void read_metadata(const rp_checkpoint &checkpoint) {
    dataset_metadata metadata;
    ::error error = {""};
    if (dataset_metadata_read(&metadata, &checkpoint, &error)) {
        for (int f = 0; f < DATASET_FEATURES; ++f) {
            CLAIM(std::isfinite(metadata.scaler.mean[f]) && std::isfinite(metadata.scaler.sd[f]));
        }
        CLAIM(std::strlen(metadata.sha256) < sizeof metadata.sha256);
    } else {
        CLAIM(error.message[0]);
    }
}

void check_round_trip(const rp_checkpoint &checkpoint) {
    const std::string written = rp::checkpoint_format(checkpoint, {});
    CLAIM(rp::checkpoint_format(rp::checkpoint_parse(written, "model"), {}) == written);
}

void read(const std::string &bytes) {
    const rp_checkpoint checkpoint = rp::checkpoint_parse(bytes, "model");
    for (const float weight : checkpoint.state.parameters) {
        CLAIM(!std::isnan(weight));
    }
    read_metadata(checkpoint);
    run_once(checkpoint);
    if (bytes.size() % 8 == 0) { // not always: it is half of the time
        check_round_trip(checkpoint);
    }
}

std::string with_fitting_checksum(std::string bytes) {
    rp::Safetensors content = rp::safetensors_parse(std::move(bytes), "model");
    content.metadata["checkpoint.checksum"] = rp::checksum(content);
    return rp::safetensors_format(content);
}

} // namespace

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const std::string bytes(reinterpret_cast<const char *>(data), size);
    try {
        read(size % 4 == 0 ? bytes : with_fitting_checksum(bytes));
    } catch (const rp::Error &failure) {
        CLAIM(failure.status == RP_ERROR_FORMAT && failure.message.rfind("model: ", 0) == 0);
    }
    return 0;
}
