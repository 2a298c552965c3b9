#include "model.h"

#include <cmath>

#include "guard.h"
#include "kernels/random.h"

namespace rp {
namespace {

void check_range(const char *name, double value, double low, double high) {
    if (!(value >= low && value <= high)) { // NaN is out of every range
        throw error(RP_ERROR_ARGUMENT, "model option %s is %g; it must be from %g to %g", name,
                    value, low, high);
    }
}

} // namespace

void check_model_options(const rp_model_options &options) {
    if (options.version != RP_OPTIONS_VERSION) {
        throw error(RP_ERROR_ARGUMENT,
                    "model options have version %u, expected %d; fill them with "
                    "rp_model_options_init first",
                    options.version, RP_OPTIONS_VERSION);
    }
    check_range("features", options.features, 1, 32);
    check_range("time_steps", options.time_steps, 1, 64);
    check_range("hidden", options.hidden, 1, 512);
    check_range("layers", options.layers, 1, 4);
    check_range("dropout", options.dropout, 0, 0.99);
    check_range("norm_momentum", options.norm_momentum, 1e-6, 1);
    check_range("norm_eps", options.norm_eps, 1e-12, 1);
    check_range("negative_slope", options.negative_slope, 0, 1);
}

std::vector<Parameter> model_parameters(const rp_model_options &options) {
    const int64_t H = options.hidden;
    std::vector<Parameter> parameters;
    int64_t offset = 0;
    auto add = [&](const std::string &name, std::vector<int64_t> shape, bool head) {
        int64_t size = 1;
        for (const int64_t extent : shape) {
            size *= extent;
        }
        parameters.push_back({name, std::move(shape), offset, size, head});
        offset += size;
    };
    for (int32_t layer = 0; layer < options.layers; ++layer) {
        const std::string suffix = "_l" + std::to_string(layer);
        add("lstm.weight_ih" + suffix, {4 * H, layer == 0 ? options.features : H}, false);
        add("lstm.weight_hh" + suffix, {4 * H, H}, false);
        add("lstm.bias_ih" + suffix, {4 * H}, false);
        add("lstm.bias_hh" + suffix, {4 * H}, false);
    }
    add("head.weight", {1, H}, true);
    add("head.bias", {1}, true);
    return parameters;
}

int64_t parameter_count(const std::vector<Parameter> &parameters) {
    return parameters.back().offset + parameters.back().size;
}

State initial_state(const rp_model_options &options, uint64_t seed) {
    State state;
    const size_t count = static_cast<size_t>(parameter_count(model_parameters(options)));
    const float bound = 1.0f / std::sqrt(static_cast<float>(options.hidden));
    state.parameters.resize(count);
    for (size_t i = 0; i < count; ++i) {
        const rp_philox_block block =
            rp_philox(seed, RP_RANDOM_WEIGHTS, static_cast<uint32_t>(i / 4), 0, 0, 0);
        // 24 bits make every value a float exactly.
        const float unit = static_cast<float>(block.word[i % 4] >> 8) * 0x1p-24f;
        state.parameters[i] = bound * (2.0f * unit - 1.0f);
    }
    state.exp_avg.assign(count, 0.0f);
    state.exp_avg_sq.assign(count, 0.0f);
    state.running_mean.assign(static_cast<size_t>(options.hidden), 0.0f);
    state.running_var.assign(static_cast<size_t>(options.hidden), 1.0f);
    return state;
}

} // namespace rp

void rp_model_options_init(rp_model_options *options) {
    if (options) {
        *options = {RP_OPTIONS_VERSION, 4, 20, 64, 2, 0.2f, 0.1f, 1e-5f, 0.01f};
    }
}

rp_status rp_model_parameter_count(int64_t *count, const rp_model_options *options) {
    return rp::guard([&] {
        rp::require(count, "count");
        rp::require(options, "options");
        rp::check_model_options(*options);
        *count = rp::parameter_count(rp::model_parameters(*options));
    });
}
