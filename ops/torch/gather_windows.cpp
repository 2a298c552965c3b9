// rp::gather_windows: schema, CPU and Meta. Not differentiable: it reads data, not activations.
#include "ops/torch/gather_windows.h"

#include <torch/library.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "ops/kernels/random.h"

namespace rp_ops {

std::tuple<at::Tensor, at::Tensor> gather_windows_outputs(const at::Tensor &features,
                                                          const at::Tensor &targets,
                                                          const at::Tensor &window_ends,
                                                          const at::Tensor &step, int64_t batch,
                                                          int64_t rows, int64_t time_steps) {
    TORCH_CHECK(features.dim() == 2 && features.scalar_type() == at::kFloat &&
                    features.is_contiguous(),
                "rp::gather_windows: features must be contiguous float32 [N, F]");
    TORCH_CHECK(targets.dim() == 1 && targets.scalar_type() == at::kFloat &&
                    targets.is_contiguous() && targets.size(0) == features.size(0),
                "rp::gather_windows: targets must be contiguous float32 [N]");
    TORCH_CHECK(window_ends.dim() == 1 && window_ends.scalar_type() == at::kInt &&
                    window_ends.is_contiguous(),
                "rp::gather_windows: window_ends must be contiguous int32 [W]");
    TORCH_CHECK(step.numel() == 1 && step.scalar_type() == at::kLong,
                "rp::gather_windows: step must be one int64");
    for (const at::Tensor *tensor : {&targets, &window_ends, &step}) {
        TORCH_CHECK(tensor->device() == features.device(),
                    "rp::gather_windows: all tensors must be on ", features.device());
    }
    const int64_t windows = window_ends.size(0);
    TORCH_CHECK(windows > 1 && batch > 1 && windows <= std::numeric_limits<int32_t>::max() && batch > 0 &&
                    rows > 0 && rows <= batch && rows <= windows && time_steps > 0,
                "rp::gather_windows: windows ", windows, ", batch ", batch, ", rows ", rows,
                " and time_steps ", time_steps, " do not go together");
    return {features.new_empty({time_steps, rows, features.size(1)}), targets.new_empty({rows})};
}

namespace {

std::tuple<at::Tensor, at::Tensor>
gather_windows_cpu(const at::Tensor &features, const at::Tensor &targets,
                   const at::Tensor &window_ends, const at::Tensor &step_tensor, int64_t seed,
                   int64_t batch, int64_t rows, int64_t time_steps) {
    auto [x, y] = gather_windows_outputs(features, targets, window_ends, step_tensor, batch, rows,
                                         time_steps);
    const int64_t windows = window_ends.size(0), width = features.size(1);
    const int64_t step = *step_tensor.const_data_ptr<int64_t>();
    const int64_t steps_per_epoch = rp_steps_per_epoch(windows, batch);
    const int64_t first = step % steps_per_epoch * batch;
    TORCH_CHECK(first + rows <= windows, "rp::gather_windows: step ", step, " has ",
                windows - first, " rows, ", rows, " were asked for");
    const rp_order_key key =
        rp_order_key_make((uint32_t)windows, (uint64_t)seed, (uint32_t)(step / steps_per_epoch));
    const float *source = features.const_data_ptr<float>();
    const float *labels = targets.const_data_ptr<float>();
    const int32_t *ends = window_ends.const_data_ptr<int32_t>();
    float *out = x.mutable_data_ptr<float>();
    float *label = y.mutable_data_ptr<float>();
    at::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t last = ends[rp_order((uint32_t)(first + row), &key)];
            TORCH_CHECK_INDEX(last >= time_steps - 1 && last < features.size(0),
                              "rp::gather_windows: window end ", last, " is outside the data");
            const float *window = source + (last + 1 - time_steps) * width;
            for (int64_t t = 0; t < time_steps; ++t) {
                std::copy_n(window + t * width, width, out + (t * rows + row) * width);
            }
            label[row] = labels[last];
        }
    });
    return {x, y};
}

std::tuple<at::Tensor, at::Tensor>
gather_windows_meta(const at::Tensor &features, const at::Tensor &targets,
                    const at::Tensor &window_ends, const at::Tensor &step, int64_t, int64_t batch,
                    int64_t rows, int64_t time_steps) {
    return gather_windows_outputs(features, targets, window_ends, step, batch, rows, time_steps);
}

} // namespace
} // namespace rp_ops

TORCH_LIBRARY_FRAGMENT(rp, m) {
    m.def("gather_windows(Tensor features, Tensor targets, Tensor window_ends, Tensor step, "
          "int seed, int batch, int rows, int time_steps) -> (Tensor, Tensor)",
          {at::Tag::pt2_compliant_tag});
}
TORCH_LIBRARY_IMPL(rp, CPU, m) {
    m.impl("gather_windows", rp_ops::gather_windows_cpu);
}
TORCH_LIBRARY_IMPL(rp, Meta, m) {
    m.impl("gather_windows", rp_ops::gather_windows_meta);
}
