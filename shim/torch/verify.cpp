#include "torch/verify.h"

#include <algorithm>

#include "guard.h"
#include "rp_ops/verify.h"
#include "torch/device.h"

namespace rp {
namespace {

int64_t report(const rp_ops::VerifyResult &result, rp_verify_callback callback, void *context,
               bool &stop) {
    int64_t differing = 0;
    rp_verify_case out = {};
    out.shape = result.shape.c_str();
    out.dtype = result.dtype.c_str();
    out.layout = result.layout.c_str();
    out.mode = result.mode.c_str();
    out.path = result.fused ? "fused" : "composed";
    out.affine = result.affine;
    constexpr size_t most = sizeof out.output / sizeof out.output[0];
    for (size_t i = 0; i < std::min(most, result.outputs.size()); ++i) {
        const rp_ops::VerifyOutput &output = result.outputs[i];
        out.output[i] = {output.name.c_str(), output.differing_elements, output.max_difference};
        differing += output.differing_elements;
        out.outputs = static_cast<int>(i) + 1;
    }
    stop = callback && callback(&out, context) != 0;
    return differing;
}

} // namespace

int64_t verify(const std::string &device, bool perturb, rp_verify_callback callback,
               void *context) {
    if (device != "cpu" && device != "cuda") {
        throw error(RP_ERROR_ARGUMENT, "device is %s; it must be cpu or cuda", device.c_str());
    }
    if (device == "cuda" && !gpu_unavailable().empty()) {
        throw error(RP_ERROR_DEVICE, "%s", gpu_unavailable().c_str());
    }
    const c10::Device where(device == "cuda" ? c10::kCUDA : c10::kCPU);
    int64_t differing = 0;
    bool stop = false;
    for (int64_t i = 0; i < rp_ops::verify_case_count() && !stop; ++i) {
        differing += report(rp_ops::verify_case(i, where, perturb), callback, context, stop);
    }
    return differing;
}

} // namespace rp
