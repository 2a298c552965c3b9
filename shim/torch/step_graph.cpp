#include "torch/step_graph.h"

#ifdef RP_HAVE_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>

#include <atomic>

namespace rp {
namespace {

// torch numbers its own pools from 1 upwards; these stay clear of them.
std::atomic<uint64_t> next_pool{uint64_t{1} << 32};

} // namespace

StepGraph::StepGraph(c10::cuda::CUDAStream stream, const std::function<void()> &work)
    : stream_(stream), pool_{0, next_pool++} {
    namespace allocator = c10::cuda::CUDACachingAllocator;
    const cudaStream_t captured = stream_.stream();
    C10_CUDA_CHECK(cudaStreamSynchronize(captured));
    allocator::beginAllocateToPool(stream_.device_index(), pool_,
                                   [captured](cudaStream_t s) { return s == captured; });
    cudaGraph_t graph = nullptr;
    try {
        C10_CUDA_CHECK(cudaStreamBeginCapture(captured, cudaStreamCaptureModeGlobal));
        work();
        C10_CUDA_CHECK(cudaStreamEndCapture(captured, &graph));
    } catch (...) {
        (void)cudaStreamEndCapture(captured,
                                   &graph); // leaves the stream usable; the cause is thrown
        (void)cudaGetLastError();
        if (graph) {
            (void)cudaGraphDestroy(graph);
        }
        allocator::endAllocateToPool(stream_.device_index(), pool_);
        allocator::releasePool(stream_.device_index(), pool_);
        throw;
    }
    allocator::endAllocateToPool(stream_.device_index(), pool_);
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    (void)cudaGraphDestroy(graph);
    if (status != cudaSuccess) {
        allocator::releasePool(stream_.device_index(), pool_);
        C10_CUDA_CHECK(status);
    }
}

StepGraph::~StepGraph() {
    (void)cudaStreamSynchronize(stream_.stream());
    (void)cudaGraphExecDestroy(graph_);
    c10::cuda::CUDACachingAllocator::releasePool(stream_.device_index(), pool_);
}

void StepGraph::replay() {
    C10_CUDA_CHECK(cudaGraphLaunch(graph_, stream_.stream()));
}

} // namespace rp
#endif
