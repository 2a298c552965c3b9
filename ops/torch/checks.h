// The checks of eager mode's batch_norm, in its words.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymBool.h>
#include <c10/util/Exception.h>

#include <optional>

namespace rp_ops {

// torch.nn.functional.batch_norm: the variance of one value is not defined.
inline void check_values_per_channel(const at::Tensor &input, bool training) {
    if (!training || input.dim() < 2) {
        return;
    }
    c10::SymInt values = input.sym_size(0);
    for (int64_t d = 2; d < input.dim(); ++d) {
        values *= input.sym_size(d);
    }
    TORCH_CHECK_VALUE(!TORCH_GUARD_OR_FALSE(values.sym_eq(1)),
                      "Expected more than 1 value per channel when training, got input size "
                      "torch.Size(",
                      input.sym_sizes(), ")");
}

// at::batch_norm: a value a channel, and statistics to evaluate with.
inline void check_arguments(const at::Tensor &input, const std::optional<at::Tensor> &weight,
                            const std::optional<at::Tensor> &bias,
                            const std::optional<at::Tensor> &running_mean,
                            const std::optional<at::Tensor> &running_var, bool training) {
    const auto check = [&](const char *name, const std::optional<at::Tensor> &tensor,
                           bool required) {
        const bool given = tensor.has_value() && tensor->defined();
        TORCH_CHECK(given || !required, name, " must be defined in evaluation mode");
        if (given) {
            TORCH_CHECK(tensor->sym_numel() == input.sym_size(1), name, " should contain ",
                        input.sym_size(1), " elements not ", tensor->sym_numel());
        }
    };
    check("running_mean", running_mean, !training);
    check("running_var", running_var, !training);
    check("weight", weight, false);
    check("bias", bias, false);
}

} // namespace rp_ops
