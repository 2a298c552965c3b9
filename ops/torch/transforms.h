// vmap, jvp and torch.func.grad wrap their tensors; a C++ autograd function can't follow them.
#pragma once

#include <ATen/core/Tensor.h>

namespace rp_ops {

inline bool is_transformed(const at::Tensor &tensor) {
    return tensor.key_set().has_any(c10::DispatchKeySet(
               {c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::FuncTorchBatched})) ||
           tensor._fw_grad(/*level=*/0).defined();
}

} // namespace rp_ops
