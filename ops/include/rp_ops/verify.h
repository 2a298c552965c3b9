// rp::bn_leaky_relu against PyTorch's own operators, case by case, bit by bit. One table of cases
// serves `return-predictor verify`, the C interface and pytest.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace rp_ops {

struct VerifyOutput {
    std::string name;           // "output", "mean", ..., "grad_bias"
    int64_t differing_elements; // elements whose bits differ
    double max_difference;      // over the elements that are finite on both sides
};

struct VerifyResult {
    std::string shape;  // "512x64"
    std::string dtype;  // "float32", or "float16, float32 parameters"
    std::string layout; // "contiguous", or "contiguous, expanded gradient"
    std::string mode;   // "train", or "eval, frozen parameters"
    bool affine;
    bool fused; // computed by the kernels of this library, not by PyTorch's operators
    std::vector<VerifyOutput> outputs;
};

int64_t verify_case_count();

// Runs case `index` on `device`. `perturb` flips the last bit of one element of the operator's
// output before the comparison, to prove that it is noticed. Throws what PyTorch throws.
VerifyResult verify_case(int64_t index, c10::Device device, bool perturb);

} // namespace rp_ops
