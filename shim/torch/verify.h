// rp_verify's work: the case table of ops/verify through the C callback.
#pragma once

#include <cstdint>
#include <string>

#include "rp/rp.h"

namespace rp {

// The number of differing elements over all cases on `device`, "cpu" or "cuda".
int64_t verify(const std::string &device, bool perturb, rp_verify_callback callback, void *context);

} // namespace rp
