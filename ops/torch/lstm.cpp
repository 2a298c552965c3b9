// rp::lstm: torch.lstm's signature and values, by the fastest path for the inputs.
//
// Policy, the whole rule of which path runs:
//   CPU inference  rp::lstm_infer: float32, no gradients wanted, biases, one direction, no
//                  projection, zero states, no autocast, a shape within lstm_cpu_fits
//   all else       torch's own operator
#include "ops/torch/lstm.h"

#include <torch/library.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace rp_ops {
namespace {

using Lstm = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

struct Arguments {
    const at::Tensor &input;
    at::TensorList hx, params; // hx is empty for zeros
    int64_t layers;
    double dropout;
    bool train, batch_first;

    int64_t hidden() const { return params[1].size(1); }
    bool wants_gradients() const {
        const auto wants = [](const at::Tensor &t) { return t.requires_grad(); };
        return at::GradMode::is_enabled() &&
               (wants(input) || std::any_of(params.begin(), params.end(), wants));
    }
};

// Float32 on one device, and shapes as torch.lstm checks them; what is wrong is for torch to say.
bool is_plain(const Arguments &a) {
    if (a.input.unsafeGetTensorImpl()->has_symbolic_sizes_strides() || a.input.dim() != 3 ||
        a.input.numel() == 0 || a.layers < 1 ||
        a.params.size() != static_cast<size_t>(4 * a.layers) || a.params[1].dim() != 2) {
        return false;
    }
    const auto fits = [&a](const at::Tensor &tensor, at::IntArrayRef sizes) {
        return tensor.sizes() == sizes && tensor.scalar_type() == at::kFloat &&
               tensor.device() == a.input.device() && tensor.layout() == at::kStrided;
    };
    const int64_t H = a.hidden();
    if (!fits(a.input, a.input.sizes())) {
        return false;
    }
    for (int64_t layer = 0; layer < a.layers; ++layer) {
        const at::Tensor *p = &a.params[static_cast<size_t>(4 * layer)];
        if (!fits(p[0], {4 * H, layer == 0 ? a.input.size(2) : H}) || !fits(p[1], {4 * H, H}) ||
            !fits(p[2], {4 * H}) || !fits(p[3], {4 * H})) {
            return false;
        }
    }
    return true;
}

bool infers_on_cpu(const Arguments &a) {
    return a.input.is_cpu() && !a.wants_gradients() && a.hx.empty() &&
           (a.dropout == 0 || !a.train || a.layers == 1) &&
           !at::autocast::is_autocast_enabled(at::kCPU) &&
           lstm_cpu_fits(a.input.size(a.batch_first ? 1 : 0), a.input.size(2), a.hidden(),
                         a.layers);
}

Lstm lstm(const at::Tensor &input, at::TensorList hx, at::TensorList params, bool has_biases,
          int64_t num_layers, double dropout, bool train, bool bidirectional, bool batch_first) {
    const Arguments a = {input, hx, params, num_layers, dropout, train, batch_first};
    if (has_biases && !bidirectional && is_plain(a) && infers_on_cpu(a)) {
        static const auto infer = c10::Dispatcher::singleton()
                                      .findSchemaOrThrow("rp::lstm_infer", "")
                                      .typed<decltype(lstm_infer)>();
        return infer.call(input, params, batch_first);
    }
    if (!hx.empty()) {
        return at::lstm(input, hx, params, has_biases, num_layers, dropout, train, bidirectional,
                        batch_first);
    }
    // Zero states as torch.nn.LSTM makes them: h has a projection's size, c the hidden one.
    TORCH_CHECK(input.dim() == 3 && params.size() >= 2,
                "rp::lstm: without hx, input must be 3-D and params not empty");
    const int64_t rows = num_layers * (bidirectional ? 2 : 1);
    const c10::SymInt batch = input.sym_size(batch_first ? 0 : 1);
    const at::Tensor h = at::zeros_symint({rows, batch, params[1].sym_size(1)}, input.options());
    const at::Tensor c =
        at::zeros_symint({rows, batch, params[1].sym_size(0) / 4}, input.options());
    return at::lstm(input, {h, c}, params, has_biases, num_layers, dropout, train, bidirectional,
                    batch_first);
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("lstm(Tensor input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers, "
          "float dropout, bool train, bool bidirectional, bool batch_first) -> "
          "(Tensor, Tensor, Tensor)",
          rp_ops::lstm, {at::Tag::pt2_compliant_tag});
}
