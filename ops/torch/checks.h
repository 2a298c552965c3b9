// Checks that eager mode makes in Python, in its words; all others are made by PyTorch's own
// batch_norm inside the composed path.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymBool.h>
#include <c10/util/Exception.h>

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

} // namespace rp_ops
