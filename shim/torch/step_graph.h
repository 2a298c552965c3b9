// One CUDA graph: captured once from a function that only launches work on the current stream,
// replayed many times. Memory that the work allocates stays reserved for the graph.
//
// Policy: built on c10's allocator and the CUDA runtime alone, because at::cuda::CUDAGraph lives in
// libtorch_cuda, which is loaded at run time and never linked. No torch generator may be used
// inside: this project's randomness is counter-based.
#pragma once

#ifdef RP_HAVE_CUDA
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <functional>

namespace rp {

class StepGraph {
  public:
    StepGraph(c10::cuda::CUDAStream stream, const std::function<void()> &work);
    ~StepGraph();
    StepGraph(const StepGraph &) = delete;
    StepGraph &operator=(const StepGraph &) = delete;
    void replay();

  private:
    c10::cuda::CUDAStream stream_;
    std::pair<uint64_t, uint64_t> pool_;
    cudaGraphExec_t graph_ = nullptr;
};

} // namespace rp
#endif
