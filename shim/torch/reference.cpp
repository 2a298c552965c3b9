#include "torch/reference.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cstring>

#include "guard.h"
#include "model.h"
#include "torch/device.h"

namespace rp {
namespace {

constexpr int64_t chunk_windows = 8192; // bounds the memory of the gathered windows

at::Tensor host(const std::vector<float> &values, at::IntArrayRef shape, int64_t offset) {
    return at::from_blob(const_cast<float *>(values.data() + offset), shape, at::kFloat).clone();
}

} // namespace

void reference_predict(float *returns, const rp_checkpoint &checkpoint, const std::string &device,
                       const float *features, int64_t rows, const int32_t *window_ends,
                       int64_t windows) {
    if (device != "cpu" && device != "cuda") {
        throw error(RP_ERROR_ARGUMENT, "device is %s; it must be cpu or cuda", device.c_str());
    }
    if (device == "cuda" && !gpu_unavailable().empty()) {
        throw error(RP_ERROR_DEVICE, "%s", gpu_unavailable().c_str());
    }
    const c10::NoGradGuard no_grad;
    const at::Device where(device == "cuda" ? at::kCUDA : at::kCPU);
    const rp_model_options &model = checkpoint.model;
    const State &state = checkpoint.state;
    std::vector<at::Tensor> weights;
    for (const Parameter &parameter : model_parameters(model)) {
        weights.push_back(host(state.parameters, parameter.shape, parameter.offset).to(where));
    }
    const at::Tensor head_bias = weights.back(), head_weight = weights[weights.size() - 2];
    weights.resize(weights.size() - 2);
    const at::Tensor mean = host(state.running_mean, {model.hidden}, 0).to(where);
    const at::Tensor variance = host(state.running_var, {model.hidden}, 0).to(where);
    const at::Tensor table =
        at::from_blob(const_cast<float *>(features), {rows, model.features}, at::kFloat).to(where);
    const at::Tensor offsets = at::arange(1 - model.time_steps, 1, at::kLong).to(where);

    for (int64_t first = 0; first < windows; first += chunk_windows) {
        const int64_t count = std::min(chunk_windows, windows - first);
        const at::Tensor ends =
            at::from_blob(const_cast<int32_t *>(window_ends + first), {count}, at::kInt)
                .to(where, at::kLong);
        const at::Tensor x = table.index({ends.unsqueeze(1) + offsets}); // [B][T][F]
        const at::Tensor zeros = at::zeros({model.layers, count, model.hidden}, table.options());
        const at::Tensor hidden =
            std::get<1>(at::lstm(x, {zeros, zeros}, weights, /*has_biases=*/true, model.layers,
                                 /*dropout=*/0.0, /*train=*/false, /*bidirectional=*/false,
                                 /*batch_first=*/true))
                .select(0, model.layers - 1);
        const at::Tensor normal =
            at::batch_norm(hidden, {}, {}, mean, variance, /*training=*/false, model.norm_momentum,
                           model.norm_eps, /*cudnn_enabled=*/false);
        const at::Tensor out =
            (at::linear(at::leaky_relu(normal, model.negative_slope), head_weight, head_bias) *
             checkpoint.target_unit)
                .squeeze(1)
                .cpu();
        std::memcpy(returns + first, out.const_data_ptr<float>(),
                    static_cast<size_t>(count) * sizeof(float));
    }
}

} // namespace rp
