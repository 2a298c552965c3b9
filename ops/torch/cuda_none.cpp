// A build without CUDA fuses nothing.
#include "bn_leaky_relu_fused.h"
#include "lstm_recurrence.h"

namespace rp_ops {

bool fuses_forward(const at::Tensor &, const OptionalTensor &, const OptionalTensor &,
                   const OptionalTensor &, const OptionalTensor &, bool) {
    return false;
}

bool fuses_backward(const at::Tensor &, const OptionalTensor &, const OptionalTensor &,
                    const OptionalTensor &, const OptionalTensor &, bool, std::array<bool, 3>) {
    return false;
}

bool lstm_recurrence_runs(const at::Device &, int64_t) {
    return false;
}

} // namespace rp_ops
