// rp::lstm: torch.lstm's signature and values, by the fastest path for the inputs.
//
// Policy, the whole rule of which path runs:
//   CPU inference  rp::lstm_infer: no gradients wanted, zero states, a shape within lstm_cpu_fits
//   GPU            rp::lstm_recurrence layer by layer, with autograd: H of 32 or 64, F <= 128,
//                  B >= 192 and B T >= 2048 (below, cuDNN is as fast in a CUDA graph), where torch
//                  may use cuDNN, and TF32 in it
//   CPU training   rp::lstm_recurrence as well: gradients wanted, H up to 128 (above, oneDNN is as
//                  fast) and a multiple of a vector's lanes
//   all else       torch's own operator
// The first three: float32, biases, one direction, no projection, no autocast, no function
// transform.
#include "ops/torch/lstm.h"
#include "ops/torch/lstm_recurrence.h"
#include "ops/torch/transforms.h"

#include <torch/library.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_unsafe_view.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

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
    int64_t batch() const { return input.size(batch_first ? 0 : 1); }
    bool wants_gradients() const {
        const auto wants = [](const at::Tensor &t) { return t.requires_grad(); };
        return at::GradMode::is_enabled() &&
               (wants(input) || std::any_of(params.begin(), params.end(), wants) ||
                std::any_of(hx.begin(), hx.end(), wants));
    }
};

// Float32 on one device, and shapes as torch.lstm checks them; what is wrong is for torch to say.
bool is_plain(const Arguments &a) {
    if (!(a.input.is_cpu() || a.input.is_cuda()) ||
        a.input.unsafeGetTensorImpl()->has_symbolic_sizes_strides() || a.input.dim() != 3 ||
        a.input.numel() == 0 || a.layers < 1 ||
        a.params.size() != static_cast<size_t>(4 * a.layers) || a.params[1].dim() != 2) {
        return false;
    }
    const auto fits = [&a](const at::Tensor &tensor, at::IntArrayRef sizes) {
        return tensor.sizes() == sizes && tensor.scalar_type() == at::kFloat &&
               tensor.device() == a.input.device() && tensor.layout() == at::kStrided &&
               !is_transformed(tensor);
    };
    const int64_t H = a.hidden();
    if (!fits(a.input, a.input.sizes())) {
        return false;
    }
    const int64_t B = a.batch();
    if (!a.hx.empty() && (a.hx.size() != 2 || !fits(a.hx[0], {a.layers, B, H}) ||
                          !fits(a.hx[1], {a.layers, B, H}))) {
        return false;
    }
    for (int64_t layer = 0; layer < a.layers; ++layer) {
        const at::Tensor *p = &a.params[static_cast<size_t>(4 * layer)];
        if (!fits(p[0], {4 * H, layer == 0 ? a.input.size(2) : H}) || !fits(p[1], {4 * H, H}) ||
            !fits(p[2], {4 * H}) || !fits(p[3], {4 * H})) {
            return false;
        }
    }
    return !at::autocast::is_autocast_enabled(a.input.device().type());
}

bool infers_on_cpu(const Arguments &a) {
    return a.input.is_cpu() && !a.wants_gradients() && a.hx.empty() &&
           (a.dropout == 0 || !a.train || a.layers == 1) &&
           lstm_cpu_fits(a.input.size(a.batch_first ? 1 : 0), a.input.size(2), a.hidden(),
                         a.layers);
}

bool recurs_on_gpu(const Arguments &a) {
    const at::Context &settings = at::globalContext();
    return a.input.is_cuda() && a.input.size(2) <= 128 && a.batch() >= 192 &&
           a.input.size(0) * a.input.size(1) >= 2048 && settings.userEnabledCuDNN() &&
           settings.allowTF32CuDNN(at::Float32Op::RNN) &&
           lstm_recurrence_runs(a.input.device(), a.hidden());
}

bool trains_on_cpu(const Arguments &a) {
    return a.input.is_cpu() && a.wants_gradients() && a.hidden() <= 128 &&
           lstm_recurrence_runs_on_cpu(a.hidden());
}

Lstm recur(const Arguments &a) {
    const auto L = static_cast<size_t>(a.layers);
    std::vector<at::Tensor> states(2 * L); // h_n, then c_n
    at::Tensor x = a.batch_first ? a.input.transpose(0, 1) : a.input;
    for (int64_t layer = 0; layer < a.layers; ++layer) {
        const at::Tensor *p = &a.params[static_cast<size_t>(4 * layer)];
        const auto state = [&](size_t k) {
            return a.hx.empty() ? OptionalTensor() : OptionalTensor(a.hx[k].select(0, layer));
        };
        const int64_t T = x.size(0), B = x.size(1);
        const at::Tensor projected =
            at::mm(x.reshape({T * B, x.size(2)}), p[0].t()).view({T, B, 4 * a.hidden()});
        at::Tensor output;
        std::tie(output, states[static_cast<size_t>(layer)],
                 states[L + static_cast<size_t>(layer)]) =
            lstm_recurrence(projected, p[1], p[2], p[3], state(0), state(1));
        x = layer + 1 < a.layers && a.train && a.dropout > 0
                ? at::dropout(output, a.dropout, /*train=*/true)
                : output;
    }
    x = a.batch_first ? x.transpose(0, 1) : x;
    // Neither is a view, as torch's are not: they may be changed in place and detached.
    const auto gather = [&](size_t first) {
        const at::TensorList layers = at::TensorList(states).slice(first, L);
        const at::Tensor &state = layers[0];
        return L == 1 ? at::_unsafe_view(state, {1, state.size(0), state.size(1)})
                      : at::stack(layers);
    };
    return {x, gather(0), gather(L)};
}

Lstm lstm(const at::Tensor &input, at::TensorList hx, at::TensorList params, bool has_biases,
          int64_t num_layers, double dropout, bool train, bool bidirectional, bool batch_first) {
    const Arguments a = {input, hx, params, num_layers, dropout, train, batch_first};
    const bool plain = has_biases && !bidirectional && is_plain(a);
    if (plain && (recurs_on_gpu(a) || trains_on_cpu(a))) {
        return recur(a);
    }
    if (plain && infers_on_cpu(a)) {
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
