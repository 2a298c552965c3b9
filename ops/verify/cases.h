// The table of cases in which rp::bn_leaky_relu is compared with PyTorch's own operators.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

namespace rp_ops {

enum class Layout {
    CONTIGUOUS,
    CHANNELS_LAST,    // 4-D and 5-D
    SLICED,           // every second row of a larger tensor
    TRANSPOSED,       // the first two dimensions exchanged in memory
    EXPANDED,         // one row repeated, stride 0
    GRADIENT_EXPANDED // input contiguous, gradient one value repeated, stride 0
};

enum class Mode {
    TRAIN,
    TRAIN_UNTRACKED,  // no running statistics
    TRAIN_CUMULATIVE, // momentum=None: 1 / number of batches
    TRAIN_FROZEN,     // weight and bias need no gradient
    EVAL,
    EVAL_FROZEN,
    EVAL_WEIGHTS_ONLY // the input needs no gradient
};

enum class Values {
    NORMAL,
    SPECIAL // NaN, infinities, -0, denormals, huge means, constant channels
};

struct Case {
    std::vector<int64_t> shape;
    c10::ScalarType dtype;
    c10::ScalarType parameter_dtype; // of weight, bias and running statistics
    Layout layout;
    bool affine;
    Mode mode;
    Values values;
};

const std::vector<Case> &cases();

} // namespace rp_ops
