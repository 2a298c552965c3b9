// libtorch's gloo process group, made without gloo's headers.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace rp {

// `timeout`: of one exchange; then it throws.
c10::intrusive_ptr<c10d::Backend> make_gloo_group(const c10::intrusive_ptr<c10d::Store> &store,
                                                  int32_t rank, int32_t count,
                                                  std::chrono::milliseconds timeout);

} // namespace rp
