// The configurations by name, and what this machine can run of them.
#include <cstdio>
#include <cstring>

#include "guard.h"
#include "torch_plugin.h"

namespace rp {
namespace {

struct Configuration {
    const char *name, *summary;
};

constexpr Configuration configurations[] = {
    {"cpu", "libtorch on the CPU"},
    {"cpu-fused", "this library's own training step on the CPU, without libtorch"},
    {"gpu", "libtorch, eager, on the GPU"},
    {"gpu-kernel", "the same with the fused BatchNorm + LeakyReLU operator"},
    {"gpu-graph", "gpu-kernel captured in a CUDA graph"},
    {"gpu-fused", "this library's own training step, many steps in one launch on the GPU"},
};
constexpr int32_t count = sizeof configurations / sizeof configurations[0];

std::string unavailable(const std::string &name) {
    if (name == "cpu-fused") {
        return "";
    }
    try {
        return torch_plugin().unavailable(name);
    } catch (const Error &failure) {
        return failure.message;
    }
}

} // namespace
} // namespace rp

int32_t rp_configuration_count(void) {
    return rp::count;
}

rp_status rp_configuration_describe(rp_configuration *configuration, int32_t index) {
    return rp::guard([&] {
        rp::require(configuration, "configuration");
        if (index < 0 || index >= rp::count) {
            throw rp::error(RP_ERROR_ARGUMENT, "configuration index %d is not below %d", index,
                            rp::count);
        }
        *configuration = {};
        configuration->name = rp::configurations[index].name;
        configuration->summary = rp::configurations[index].summary;
        const std::string reason = rp::unavailable(configuration->name);
        std::snprintf(configuration->reason, sizeof configuration->reason, "%s", reason.c_str());
        configuration->available = reason.empty();
    });
}

rp_status rp_machine_describe(rp_machine *machine) {
    return rp::guard([&] {
        rp::require(machine, "machine");
        *machine = {};
        rp::torch_plugin().describe_machine(*machine);
    });
}

rp_status rp_verify(int64_t *differing_elements, const char *device, int perturb,
                    rp_verify_callback callback, void *context) {
    return rp::guard([&] {
        rp::require(differing_elements, "differing_elements");
        *differing_elements = 0;
        rp::require(device, "device");
        *differing_elements = rp::torch_plugin().verify(device, perturb != 0, callback, context);
    });
}
