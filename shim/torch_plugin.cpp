#include "torch_plugin.h"

#include <dlfcn.h>

#include <cstdlib>

#include "guard.h"

namespace rp {
namespace {

const TorchPlugin *load() {
    // libgomp's threads spin for milliseconds at every barrier by default, and when another process
    // needs a core each spin burns its whole time slice: training was seen 100 times slower. Spin
    // some microseconds, then sleep; a value that the user has set stays.
    (void)setenv("GOMP_SPINCOUNT", "10000", /*overwrite=*/0);
    // librp.so's run path contains its own folder, where the plugin lies too.
    void *library = dlopen("librp_torch.so", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        throw error(RP_ERROR_UNAVAILABLE, "this needs libtorch, which can't be loaded: %s",
                    reason ? reason : "librp_torch.so not found beside librp.so");
    }
    const auto entry =
        reinterpret_cast<decltype(&rp_torch_plugin)>(dlsym(library, "rp_torch_plugin"));
    if (!entry) {
        throw error(RP_ERROR_INTERNAL, "librp_torch.so has no entry rp_torch_plugin; it and "
                                       "librp.so are of different builds");
    }
    return entry();
}

} // namespace

const TorchPlugin &torch_plugin() {
    static const TorchPlugin *plugin = load(); // a throw leaves it for the next call to try again
    return *plugin;
}

} // namespace rp
