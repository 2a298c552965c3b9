// The table of one instruction set's kernels; lstm_cpu_<set>.cpp includes this and returns it.
#pragma once

#include "kernels/lstm_cpu_backward_impl.h"
#include "kernels/lstm_cpu_forward_impl.h"
#include "kernels/lstm_cpu_head_impl.h"
#include "kernels/lstm_cpu_predict_impl.h"
#include "kernels/lstm_cpu_recurrence_impl.h"

namespace rp {
namespace {

constexpr LstmCpuKernels kernels_named(const char *name) {
    return {name,
            lanes,
            slice,
            unit_tile,
            output_tile,
            predict_rows,
            predict_single,
            forward_slice,
            backward_slice,
            train_head,
            adam_update,
            recur_rows,
            recur_rows_backward};
}

} // namespace
} // namespace rp
