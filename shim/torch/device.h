// The GPU as libtorch sees it.
#pragma once

#include <string>

#include "backend.h"

namespace rp {

// Why no GPU can be used; "" when one can. The first call loads libtorch_cuda where there is a GPU.
// It must come before any other use of libtorch, which otherwise finds CUDA absent for good.
std::string gpu_unavailable();

// Why this machine can't run `configuration`; "" when it can. Unknown names are an Error.
std::string configuration_unavailable(const std::string &configuration);

void describe_machine(rp_machine &machine);

// Of the GPU; an Error without one.
int64_t gpu_multiprocessors();

// Peak bytes taken from the GPU by this process's tensors.
int64_t gpu_peak_memory();

} // namespace rp
