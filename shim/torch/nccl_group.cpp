// librp_nccl.so: the process group of ranks that have a GPU each. A library of its own, because it
// links libtorch_cuda, which librp_torch.so loads only where there is a GPU.
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>

#include "torch/process_group.h"

extern "C" c10d::Backend *rp_nccl_group(const c10::intrusive_ptr<c10d::Store> &store, int32_t rank,
                                        int32_t count, std::chrono::milliseconds timeout) {
    // A rank that dies is an error of the exchange, to be reported in our words, and not, as is the
    // default, the end of this process by a watchdog.
    setenv("TORCH_NCCL_BLOCKING_WAIT", "1", /*overwrite=*/1);
    setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/1);
    const auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = timeout;
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, count, options).release();
}
