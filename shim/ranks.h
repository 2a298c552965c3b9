// Processes that share work: what librp_torch.so gives to librp.so.
#pragma once

#include "backend.h"

namespace rp {

class Ranks {
  public:
    virtual ~Ranks() = default;
    virtual int64_t add(const std::string &counter, int64_t amount) = 0;
    // Throws RP_ERROR_RANK, naming it, when a rank is dead.
    virtual void check() = 0;
    virtual void wait(const std::string &place) = 0;
    virtual int32_t rank() const = 0;
    virtual int32_t count() const = 0;
};

} // namespace rp

struct rp_ranks {
    std::unique_ptr<rp::Ranks> ranks;
};
