#include "torch/device.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <cstdio>

#include "guard.h"

#ifdef RP_HAVE_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#endif

namespace rp {
namespace {

std::string load_cuda() {
#ifdef RP_HAVE_CUDA
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess) {
        (void)cudaGetLastError();
        return std::string("no usable GPU: ") + cudaGetErrorString(status);
    }
    if (count == 0) {
        return "no GPU";
    }
    // Found through this library's run path. Global, so that its registrations see one another.
    if (!dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) {
        const char *reason = dlerror();
        return std::string("libtorch's CUDA part can't be loaded: ") + (reason ? reason : "");
    }
    return "";
#else
    return "this build has no CUDA kernels (see `./dev doctor`)";
#endif
}

[[maybe_unused]] std::string version_text(int64_t version, int64_t major, int64_t minor) {
    return std::to_string(version / major) + '.' + std::to_string(version % major / minor);
}

void put(char *out, size_t size, const std::string &text) {
    std::snprintf(out, size, "%s", text.c_str());
}

} // namespace

std::string gpu_unavailable() {
    static const std::string reason = load_cuda();
    return reason;
}

std::string configuration_unavailable(const std::string &configuration) {
    if (configuration == "cpu") {
        return "";
    }
    for (const char *name : {"gpu", "gpu-kernel", "gpu-graph", "gpu-fused"}) {
        if (configuration == name) {
            return gpu_unavailable();
        }
    }
    throw error(RP_ERROR_ARGUMENT,
                "unknown configuration %s; known are cpu, gpu, gpu-kernel, "
                "gpu-graph, gpu-fused",
                configuration.c_str());
}

void describe_machine(rp_machine &machine) {
    put(machine.torch, sizeof machine.torch, TORCH_VERSION);
    put(machine.compiler, sizeof machine.compiler, "gcc " __VERSION__);
    if (!gpu_unavailable().empty()) {
        return;
    }
#ifdef RP_HAVE_CUDA
    cudaDeviceProp properties{};
    int driver = 0, runtime = 0;
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess ||
        cudaDriverGetVersion(&driver) != cudaSuccess ||
        cudaRuntimeGetVersion(&runtime) != cudaSuccess) {
        throw error(RP_ERROR_DEVICE, "the GPU does not answer: %s",
                    cudaGetErrorString(cudaGetLastError()));
    }
    put(machine.gpu, sizeof machine.gpu, properties.name);
    put(machine.driver, sizeof machine.driver, version_text(driver, 1000, 10));
    put(machine.cuda, sizeof machine.cuda, version_text(runtime, 1000, 10));
    put(machine.cudnn, sizeof machine.cudnn,
        version_text(at::globalContext().versionCuDNN(), 10000, 100));
#endif
}

int64_t gpu_multiprocessors() {
    const std::string reason = gpu_unavailable();
    if (!reason.empty()) {
        throw error(RP_ERROR_DEVICE, "%s", reason.c_str());
    }
    int count = 0;
#ifdef RP_HAVE_CUDA
    if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0) != cudaSuccess) {
        throw error(RP_ERROR_DEVICE, "the GPU does not answer: %s",
                    cudaGetErrorString(cudaGetLastError()));
    }
#endif
    return count;
}

int64_t gpu_peak_memory() {
#ifdef RP_HAVE_CUDA
    using c10::CachingAllocator::StatType;
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
    return stats.allocated_bytes[static_cast<size_t>(StatType::AGGREGATE)].peak;
#else
    return 0;
#endif
}

} // namespace rp
