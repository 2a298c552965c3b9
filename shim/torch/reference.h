// The model's forward pass by libtorch's own operators: what the project's kernels are held
// against.
#pragma once

#include <string>

#include "checkpoint.h"

namespace rp {

// returns [W] from features [N][F] and window_ends [W], all on the host; device "cpu" or "cuda".
void reference_predict(float *returns, const rp_checkpoint &checkpoint, const std::string &device,
                       const float *features, int64_t rows, const int32_t *window_ends,
                       int64_t windows);

} // namespace rp
