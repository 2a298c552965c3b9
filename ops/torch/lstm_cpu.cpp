// rp::lstm_infer: CPU and Meta. The kernels are ops/kernels/lstm_cpu.h's.
#include <torch/library.h>
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "kernels/lstm_cpu.h"
#include "ops/torch/lstm.h"

namespace rp_ops {

bool lstm_cpu_fits(int64_t time_steps, int64_t features, int64_t hidden, int64_t layers) {
    return time_steps <= 64 && features <= 32 && hidden <= 64 && layers <= 4 &&
           rp::lstm_cpu_best_isa() != rp::LstmCpuIsa::portable;
}

namespace {

using Lstm = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

constexpr int64_t least_work = 4'000'000; // multiplications worth a thread, 0.1 ms

// output [B][T][H], or [T][B][H], and hy, cy [L][B][H].
Lstm outputs(const at::Tensor &input, at::TensorList params, bool batch_first) {
    TORCH_CHECK(input.dim() == 3 && params.size() >= 4 && params.size() % 4 == 0 &&
                    params[1].dim() == 2,
                "rp::lstm_infer: input must be 3-D, params four a layer");
    const c10::SymInt H = params[1].sym_size(1), B = input.sym_size(batch_first ? 0 : 1);
    const c10::SymInt layers = static_cast<int64_t>(params.size() / 4);
    const auto make = [&input](c10::SymInt a, c10::SymInt b, c10::SymInt c) {
        return at::empty_symint({a, b, c}, input.options());
    };
    return {make(input.sym_size(0), input.sym_size(1), H), make(layers, B, H), make(layers, B, H)};
}

Lstm lstm_infer_cpu(const at::Tensor &input, at::TensorList params, bool batch_first) {
    auto [output, hy, cy] = outputs(input, params, batch_first);
    const int64_t B = hy.size(1), H = hy.size(2);
    const at::Tensor windows = (batch_first ? input : input.transpose(0, 1)).contiguous();
    const int64_t T = windows.size(1);
    TORCH_CHECK(lstm_cpu_fits(T, windows.size(2), H, hy.size(0)) && windows.numel() > 0 &&
                    B * T < (int64_t{1} << 31),
                "rp::lstm_infer: input ", input.sizes(), " with H = ", H, " is not its shape");
    const rp::LstmCpuShape shape = {static_cast<int32_t>(windows.size(2)), static_cast<int32_t>(T),
                                    static_cast<int32_t>(H), static_cast<int32_t>(hy.size(0))};
    std::vector<at::Tensor> flat;
    for (const at::Tensor &parameter : params) {
        TORCH_CHECK(parameter.scalar_type() == at::kFloat && parameter.is_cpu(),
                    "rp::lstm_infer: parameters must be float32 on the CPU");
        flat.push_back(parameter.reshape({-1}));
    }
    flat.push_back(at::zeros({H + 1}, input.options())); // a head, which is not run
    const at::Tensor parameters = at::cat(flat), ones = at::ones({H}, input.options());
    const rp::LstmCpu model(shape, parameters.const_data_ptr<float>(), ones.const_data_ptr<float>(),
                            ones.const_data_ptr<float>(), 0.0f, 0.0f);

    const rp::LstmCpu::Sequences out = {
        output.mutable_data_ptr<float>(), hy.mutable_data_ptr<float>(),
        cy.mutable_data_ptr<float>(),     batch_first ? T * H : H,
        batch_first ? H : B * H,          B};
    const float *rows = windows.const_data_ptr<float>();
    const int64_t work = T * 4 * H * (windows.size(2) + H + (hy.size(0) - 1) * 2 * H);
    at::parallel_for(0, B, std::max<int64_t>(16, least_work / work),
                     [&](int64_t begin, int64_t end) {
                         rp::LstmCpu::Scratch scratch(model);
                         model.run_sequences(out, scratch, rows, begin, end);
                     });
    return {output, hy, cy};
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("lstm_infer(Tensor input, Tensor[] params, bool batch_first) -> (Tensor, Tensor, Tensor)",
          {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_IMPL(rp, CPU, m) {
    m.impl("lstm_infer", rp_ops::lstm_infer_cpu);
}
TORCH_LIBRARY_IMPL(rp, Meta, m) {
    m.impl("lstm_infer", rp_ops::outputs);
}
