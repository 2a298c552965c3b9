// rp::lstm_dropout: schema, CPU, Meta and Autograd. The mask is ops/kernels/random.h's.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <vector>

#include "ops/kernels/random.h"
#include "ops/torch/lstm_dropout.h"

namespace rp_ops {

void check_lstm_dropout(const at::Tensor &input, const at::Tensor &step, int64_t layer, double p) {
    TORCH_CHECK(input.dim() == 3, "rp::lstm_dropout: input must be [T, B, H], got ", input.dim(),
                " dimensions");
    TORCH_CHECK(input.scalar_type() == at::kFloat || input.scalar_type() == at::kDouble,
                "rp::lstm_dropout: input must be float32 or float64, got ", input.scalar_type());
    TORCH_CHECK(input.size(1) * input.size(2) < (int64_t(1) << 31) && input.size(2) < (1 << 16) &&
                    input.size(0) < (1 << 11),
                "rp::lstm_dropout: input is too large: ", input.sizes());
    TORCH_CHECK(step.numel() == 1 && step.scalar_type() == at::kLong &&
                    step.device() == input.device(),
                "rp::lstm_dropout: step must be one int64 on input's device");
    TORCH_CHECK(p >= 0.0 && p < 1.0, "rp::lstm_dropout: p must be in [0, 1), got ", p);
    TORCH_CHECK(layer >= 0 && layer < 256, "rp::lstm_dropout: layer must be in [0, 256), got ",
                layer);
}

namespace {

at::Tensor lstm_dropout(const at::Tensor &input, const at::Tensor &step, int64_t seed,
                        int64_t layer, double p) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("rp::lstm_dropout", "")
                               .typed<decltype(lstm_dropout)>();
    return op.call(input, step, seed, layer, p);
}

// Row by row: at one cell after another all time steps' lines would meet in the same cache sets.
template <typename scalar_t>
void drop(scalar_t *output, const scalar_t *input, at::IntArrayRef sizes, int64_t step,
          int64_t seed, int64_t layer, float p) {
    const int64_t time_steps = sizes[0], batch = sizes[1], hidden = sizes[2];
    const uint32_t threshold = rp_dropout_threshold(p);
    const scalar_t scale = rp_dropout_scale(threshold);
    at::parallel_for(0, batch, 16, [&](int64_t begin, int64_t end) {
        std::vector<uint32_t> keep(static_cast<size_t>(hidden));
        for (int64_t row = begin; row < end; ++row) {
            for (int64_t t = 0; t < time_steps; ++t) {
                for (int64_t unit = 0; t % 8 == 0 && unit < hidden; ++unit) {
                    keep[unit] = rp_dropout_keep_bits(
                        rp_dropout_block((uint64_t)seed, step, (uint32_t)row, (uint32_t)layer,
                                         (uint32_t)unit, (uint32_t)(t / 8)),
                        threshold);
                }
                const int64_t first = (t * batch + row) * hidden;
                for (int64_t unit = 0; unit < hidden; ++unit) {
                    const bool kept = keep[unit] >> t % 8 & 1u;
                    output[first + unit] = kept ? input[first + unit] * scale : scalar_t(0);
                }
            }
        }
    });
}

at::Tensor lstm_dropout_cpu(const at::Tensor &input, const at::Tensor &step, int64_t seed,
                            int64_t layer, double p) {
    check_lstm_dropout(input, step, layer, p);
    const at::Tensor source = input.contiguous();
    at::Tensor output = at::empty_like(source);
    AT_DISPATCH_FLOATING_TYPES(source.scalar_type(), "lstm_dropout", [&] {
        drop(output.mutable_data_ptr<scalar_t>(), source.const_data_ptr<scalar_t>(), source.sizes(),
             *step.const_data_ptr<int64_t>(), seed, layer, (float)p);
    });
    return output;
}

at::Tensor lstm_dropout_meta(const at::Tensor &input, const at::Tensor &step, int64_t,
                             int64_t layer, double p) {
    check_lstm_dropout(input, step, layer, p);
    return at::empty_like(input, at::MemoryFormat::Contiguous);
}

// Linear and diagonal, so it is its own adjoint: the gradient passes through the same mask.
struct LstmDropoutFunction : torch::autograd::Function<LstmDropoutFunction> {
    static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &input,
                              const at::Tensor &step, int64_t seed, int64_t layer, double p) {
        context->save_for_backward({step});
        context->saved_data["seed"] = seed;
        context->saved_data["layer"] = layer;
        context->saved_data["p"] = p;
        at::AutoDispatchBelowADInplaceOrView below_autograd;
        return lstm_dropout(input, step, seed, layer, p);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   torch::autograd::variable_list grads) {
        auto &data = context->saved_data;
        const at::Tensor step = context->get_saved_variables()[0];
        return {lstm_dropout(grads[0], step, data["seed"].toInt(), data["layer"].toInt(),
                             data["p"].toDouble()),
                at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

at::Tensor lstm_dropout_autograd(const at::Tensor &input, const at::Tensor &step, int64_t seed,
                                 int64_t layer, double p) {
    return LstmDropoutFunction::apply(input, step, seed, layer, p);
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("lstm_dropout(Tensor input, Tensor step, int seed, int layer, float p) -> Tensor",
          {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_IMPL(rp, CPU, m) {
    m.impl("lstm_dropout", rp_ops::lstm_dropout_cpu);
}
TORCH_LIBRARY_IMPL(rp, Meta, m) {
    m.impl("lstm_dropout", rp_ops::lstm_dropout_meta);
}
TORCH_LIBRARY_IMPL(rp, Autograd, m) {
    m.impl("lstm_dropout", rp_ops::lstm_dropout_autograd);
}
