// Ranks over c10d's TCPStore and, for tensors, its NCCL or gloo process group.
#pragma once

#include "ranks.h"

#include <ATen/core/Tensor.h>

namespace rp {

// What make_ranks makes.
class TensorRanks : public Ranks {
  public:
    // own [...] of every rank, the same shape in each -> [ranks][...] in the order of the ranks, on
    // own's device. Every rank must call it; a dead one is an Error.
    virtual at::Tensor gather(const at::Tensor &own) = 0;
};

std::unique_ptr<Ranks> make_ranks(const rp_ranks_options &options);

} // namespace rp
