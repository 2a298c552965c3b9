// Checkpoint file, byte by byte: the safetensors container (safetensors.h) with
//   lstm.*, head.*                   F32  the parameters; the head in returns (see target_unit)
//   norm.running_mean, running_var   F32 [H]
//   norm.num_batches_tracked         I64 scalar
//   adam.exp_avg.<p>, adam.exp_avg_sq.<p>  F32, of each parameter, in target units
// and, in __metadata__, the keys that checkpoint_describe writes plus the caller's own.
// checkpoint.checksum is 64-bit FNV-1a over the tensors' bytes in name order, then over every other
// metadata key and value in key order, each ended by a zero byte.
#include "checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "guard.h"
#include "model.h"
#include "safetensors.h"

namespace rp {
namespace {

const char *const format_version = "1";

std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    return text;
}

std::string number_list(const std::vector<double> &values) {
    std::string text;
    for (const double value : values) {
        text += (text.empty() ? "" : " ") + number(value);
    }
    return text;
}

uint64_t fnv1a(uint64_t hash, std::string_view bytes) {
    for (const char c : bytes) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    }
    return hash;
}

std::string checksum(const Safetensors &content) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const auto &[name, tensor] : content.tensors) {
        hash = fnv1a(hash, tensor.bytes);
    }
    for (const auto &[key, value] : content.metadata) {
        if (key != "checkpoint.checksum") {
            hash = fnv1a(fnv1a(hash, {key.c_str(), key.size() + 1}),
                         {value.c_str(), value.size() + 1});
        }
    }
    char text[17];
    std::snprintf(text, sizeof text, "%016" PRIx64, hash);
    return text;
}

std::vector<float> scaled(const std::vector<float> &values, const Parameter &parameter,
                          double unit) {
    std::vector<float> out(values.begin() + parameter.offset,
                           values.begin() + parameter.offset + parameter.size);
    if (parameter.head) {
        for (float &value : out) {
            value *= static_cast<float>(unit); // exact: unit is a power of two
        }
    }
    return out;
}

// Reads typed values out of a parsed file and names what is missing or wrong.
class Fields {
  public:
    Fields(const Safetensors &content, const std::string &path) : content_(content), path_(path) {}

    [[noreturn]] void refuse(const std::string &what) const {
        throw error(RP_ERROR_FORMAT, "%s: %s", path_.c_str(), what.c_str());
    }

    const std::string &text(const std::string &key) const {
        const auto found = content_.metadata.find(key);
        if (found == content_.metadata.end()) {
            refuse("metadata " + key + " is missing; not a checkpoint of this program");
        }
        return found->second;
    }

    double real(const std::string &key) const {
        const std::vector<double> values = reals(key);
        if (values.size() != 1) {
            refuse("metadata " + key + " is not one number");
        }
        return values[0];
    }

    std::vector<double> reals(const std::string &key) const {
        std::vector<double> values;
        const char *at = text(key).c_str();
        while (*at != '\0') {
            char *end = nullptr;
            values.push_back(std::strtod(at, &end));
            if (end == at || (*end != ' ' && *end != '\0') || !std::isfinite(values.back())) {
                refuse("metadata " + key + " is not a list of numbers");
            }
            at = *end == ' ' ? end + 1 : end;
        }
        return values;
    }

    int64_t whole(const std::string &key) const {
        char *end = nullptr;
        const std::string &value = text(key);
        errno = 0;
        const long long result = std::strtoll(value.c_str(), &end, 10);
        if (value.empty() || *end != '\0' || errno != 0 || result < 0) {
            refuse("metadata " + key + " is not a non-negative whole number");
        }
        return result;
    }

    void tensor(const std::string &name, const std::vector<int64_t> &shape, float *out) {
        const auto found = content_.tensors.find(name);
        if (found == content_.tensors.end()) {
            refuse("tensor " + name + " is missing");
        }
        if (found->second.dtype != "F32" || found->second.shape != shape) {
            refuse("tensor " + name + " has another type or shape than the model's options say");
        }
        std::memcpy(out, found->second.bytes.data(), found->second.bytes.size());
        for (size_t i = 0; i < found->second.bytes.size() / sizeof(float); ++i) {
            if (!std::isfinite(out[i])) {
                refuse("tensor " + name + " contains NaN or infinity");
            }
        }
        ++used_;
    }

    void done(size_t others) const {
        if (used_ + others != content_.tensors.size()) {
            refuse("it contains tensors that do not belong to the model");
        }
    }

  private:
    const Safetensors &content_;
    const std::string &path_;
    size_t used_ = 0;
};

rp_model_options read_model(const Fields &fields) {
    rp_model_options model;
    rp_model_options_init(&model);
    auto small = [&fields](const std::string &key) {
        return static_cast<int32_t>(std::min<int64_t>(fields.whole(key), INT32_MAX));
    };
    model.features = small("model.features");
    model.time_steps = small("model.time_steps");
    model.hidden = small("model.hidden");
    model.layers = small("model.layers");
    model.dropout = static_cast<float>(fields.real("model.dropout"));
    model.norm_momentum = static_cast<float>(fields.real("model.norm_momentum"));
    model.norm_eps = static_cast<float>(fields.real("model.norm_eps"));
    model.negative_slope = static_cast<float>(fields.real("model.negative_slope"));
    try {
        check_model_options(model);
    } catch (const Error &failure) {
        fields.refuse(failure.message);
    }
    return model;
}

void read_state(Fields &fields, rp_checkpoint &checkpoint) {
    State &state = checkpoint.state;
    const std::vector<Parameter> parameters = model_parameters(checkpoint.model);
    const size_t count = static_cast<size_t>(parameter_count(parameters));
    for (std::vector<float> *vector : {&state.parameters, &state.exp_avg, &state.exp_avg_sq}) {
        vector->resize(count);
    }
    for (const Parameter &parameter : parameters) {
        const auto at = parameter.offset;
        fields.tensor(parameter.name, parameter.shape, &state.parameters[at]);
        fields.tensor("adam.exp_avg." + parameter.name, parameter.shape, &state.exp_avg[at]);
        fields.tensor("adam.exp_avg_sq." + parameter.name, parameter.shape, &state.exp_avg_sq[at]);
        const std::vector<float> unfolded =
            scaled(state.parameters, parameter, 1.0 / checkpoint.target_unit);
        std::copy(unfolded.begin(), unfolded.end(), state.parameters.begin() + at);
    }
    const int64_t H = checkpoint.model.hidden;
    state.running_mean.resize(static_cast<size_t>(H));
    state.running_var.resize(static_cast<size_t>(H));
    fields.tensor("norm.running_mean", {H}, state.running_mean.data());
    fields.tensor("norm.running_var", {H}, state.running_var.data());
    fields.done(1); // norm.num_batches_tracked
    state.step = fields.whole("training.step");
    state.loss_scale = static_cast<float>(fields.real("training.loss_scale"));
    state.good_steps = fields.whole("training.good_steps");
    state.skipped_steps = fields.whole("training.skipped_steps");
}

} // namespace

void checkpoint_describe(rp_checkpoint &checkpoint) {
    const rp_model_options &model = checkpoint.model;
    const State &state = checkpoint.state;
    const std::pair<const char *, std::string> own[] = {
        {"checkpoint.format", "return-predictor"},
        {"checkpoint.version", format_version},
        {"checkpoint.program", RP_VERSION},
        {"model.features", std::to_string(model.features)},
        {"model.time_steps", std::to_string(model.time_steps)},
        {"model.hidden", std::to_string(model.hidden)},
        {"model.layers", std::to_string(model.layers)},
        {"model.dropout", number(model.dropout)},
        {"model.norm_momentum", number(model.norm_momentum)},
        {"model.norm_eps", number(model.norm_eps)},
        {"model.negative_slope", number(model.negative_slope)},
        {"training.seed", std::to_string(checkpoint.seed)},
        {"training.batch", std::to_string(checkpoint.batch)},
        {"training.windows", std::to_string(checkpoint.windows)},
        {"training.target_unit", number(checkpoint.target_unit)},
        {"training.step", std::to_string(state.step)},
        {"training.loss_scale", number(state.loss_scale)},
        {"training.good_steps", std::to_string(state.good_steps)},
        {"training.skipped_steps", std::to_string(state.skipped_steps)},
        {"training.epoch_loss_sum", number(checkpoint.epoch_loss_sum)},
        {"training.epoch_losses", number_list(checkpoint.epoch_losses)},
    };
    for (const auto &[key, value] : own) {
        checkpoint.metadata[key] = value;
    }
}

std::string checkpoint_format(const rp_checkpoint &checkpoint,
                              const std::map<std::string, std::string> &extra) {
    rp_checkpoint copy = checkpoint;
    for (const auto &[key, value] : extra) {
        copy.metadata[key] = value;
    }
    checkpoint_describe(copy);
    Safetensors content;
    content.metadata = copy.metadata;
    std::map<std::string, std::vector<float>> values; // keeps the bytes alive until formatted
    auto put = [&](const std::string &name, const std::vector<int64_t> &shape,
                   std::vector<float> numbers) {
        const std::vector<float> &kept = values[name] = std::move(numbers);
        content.tensors[name] = {
            "F32",
            shape,
            {reinterpret_cast<const char *>(kept.data()), kept.size() * sizeof(float)}};
    };
    const State &state = checkpoint.state;
    for (const Parameter &parameter : model_parameters(checkpoint.model)) {
        const Parameter plain{parameter.name, parameter.shape, parameter.offset, parameter.size,
                              false};
        put(parameter.name, parameter.shape,
            scaled(state.parameters, parameter, checkpoint.target_unit));
        put("adam.exp_avg." + parameter.name, parameter.shape, scaled(state.exp_avg, plain, 1));
        put("adam.exp_avg_sq." + parameter.name, parameter.shape,
            scaled(state.exp_avg_sq, plain, 1));
    }
    put("norm.running_mean", {checkpoint.model.hidden}, state.running_mean);
    put("norm.running_var", {checkpoint.model.hidden}, state.running_var);
    content.tensors["norm.num_batches_tracked"] = {
        "I64", {}, {reinterpret_cast<const char *>(&state.step), sizeof state.step}};
    content.metadata["checkpoint.checksum"] = checksum(content);
    return safetensors_format(content);
}

rp_checkpoint checkpoint_parse(std::string file, const std::string &path) {
    const Safetensors content = safetensors_parse(std::move(file), path);
    Fields fields(content, path);
    if (fields.text("checkpoint.format") != "return-predictor") {
        fields.refuse("checkpoint.format is not return-predictor");
    }
    if (fields.text("checkpoint.version") != format_version) {
        fields.refuse("checkpoint.version is " + fields.text("checkpoint.version") +
                      "; this program reads version " + format_version);
    }
    if (fields.text("checkpoint.checksum") != checksum(content)) {
        fields.refuse("the checksum does not match; the file is damaged");
    }
    const auto batches = content.tensors.find("norm.num_batches_tracked");
    if (batches == content.tensors.end() || batches->second.dtype != "I64" ||
        !batches->second.shape.empty()) {
        fields.refuse("tensor norm.num_batches_tracked is missing or not an I64 scalar");
    }
    rp_checkpoint checkpoint;
    checkpoint.model = read_model(fields);
    int exponent = 0;
    checkpoint.target_unit = fields.real("training.target_unit");
    if (!(checkpoint.target_unit > 0) || std::frexp(checkpoint.target_unit, &exponent) != 0.5) {
        fields.refuse("training.target_unit is not a power of two");
    }
    char *end = nullptr;
    checkpoint.seed = std::strtoull(fields.text("training.seed").c_str(), &end, 10);
    if (*end != '\0') {
        fields.refuse("training.seed is not a whole number");
    }
    checkpoint.batch = fields.whole("training.batch");
    checkpoint.windows = fields.whole("training.windows");
    checkpoint.epoch_loss_sum = fields.real("training.epoch_loss_sum");
    checkpoint.epoch_losses = fields.reals("training.epoch_losses");
    read_state(fields, checkpoint);
    checkpoint.metadata = content.metadata;
    return checkpoint;
}

std::map<std::string, std::string> metadata_map(const rp_metadata *metadata, int64_t count) {
    std::map<std::string, std::string> map;
    if (count < 0 || (count > 0 && !metadata)) {
        throw error(RP_ERROR_ARGUMENT, "metadata is NULL or its count negative");
    }
    for (int64_t i = 0; i < count; ++i) {
        require(metadata[i].key, "metadata key");
        require(metadata[i].value, "metadata value");
        const std::string key = metadata[i].key;
        for (const char *prefix : {"model.", "training.", "checkpoint."}) {
            if (key.rfind(prefix, 0) == 0) {
                throw error(RP_ERROR_ARGUMENT,
                            "metadata key %s: names that begin with %s are the "
                            "library's own",
                            key.c_str(), prefix);
            }
        }
        map[key] = metadata[i].value;
    }
    return map;
}

} // namespace rp

rp_status rp_checkpoint_load(rp_checkpoint **checkpoint, const char *path) {
    return rp::guard([&] {
        rp::require(checkpoint, "checkpoint");
        *checkpoint = nullptr;
        rp::require(path, "path");
        *checkpoint = new rp_checkpoint(rp::checkpoint_parse(rp::file_read(path), path));
    });
}

void rp_checkpoint_free(rp_checkpoint *checkpoint) {
    delete checkpoint;
}

const char *rp_checkpoint_metadata(const rp_checkpoint *checkpoint, const char *key) {
    if (!checkpoint || !key) {
        return nullptr;
    }
    const auto found = checkpoint->metadata.find(key);
    return found == checkpoint->metadata.end() ? nullptr : found->second.c_str();
}

rp_status rp_checkpoint_model(rp_model_options *model, const rp_checkpoint *checkpoint) {
    return rp::guard([&] {
        rp::require(model, "model");
        rp::require(checkpoint, "checkpoint");
        *model = checkpoint->model;
    });
}

rp_status rp_checkpoint_save(const rp_checkpoint *checkpoint, const char *path,
                             const rp_metadata *metadata, int64_t metadata_count) {
    return rp::guard([&] {
        rp::require(checkpoint, "checkpoint");
        rp::require(path, "path");
        rp::file_replace(
            path, rp::checkpoint_format(*checkpoint, rp::metadata_map(metadata, metadata_count)));
    });
}
