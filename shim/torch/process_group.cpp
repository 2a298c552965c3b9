// libtorch's gloo process group, made without gloo's headers, and its NCCL one from librp_nccl.so.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <dlfcn.h>

#include "torch/process_group.h"

namespace rp {

c10::intrusive_ptr<c10d::Backend> make_process_group(const c10::intrusive_ptr<c10d::Store> &store,
                                                     int32_t rank, int32_t count,
                                                     std::chrono::milliseconds timeout, bool gpu) {
    if (gpu) {
        void *library =
            dlopen("librp_nccl.so", RTLD_NOW | RTLD_LOCAL); // not in a build without NCCL's header
        void *function = library ? dlsym(library, "rp_nccl_group") : nullptr;
        if (function) {
            const auto make = reinterpret_cast<decltype(&rp_nccl_group)>(function);
            return c10::intrusive_ptr<c10d::Backend>::reclaim(make(store, rank, count, timeout));
        }
    }
    auto options = c10d::ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, count, options);
}

} // namespace rp
