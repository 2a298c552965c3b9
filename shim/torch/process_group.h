// libtorch's process groups, by which ranks exchange tensors.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace rp {

// "nccl", for tensors on GPUs, where `gpu` and this build has it; else "gloo", for those of the
// host: getBackendName() says which. `timeout`: of one exchange; then it throws.
c10::intrusive_ptr<c10d::Backend> make_process_group(const c10::intrusive_ptr<c10d::Store> &store,
                                                     int32_t rank, int32_t count,
                                                     std::chrono::milliseconds timeout, bool gpu);

} // namespace rp

// Of librp_nccl.so; the caller owns the reference that the pointer stands for.
extern "C" c10d::Backend *rp_nccl_group(const c10::intrusive_ptr<c10d::Store> &store, int32_t rank,
                                        int32_t count, std::chrono::milliseconds timeout);
