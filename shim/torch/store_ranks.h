// Ranks over c10d's TCPStore.
#pragma once

#include "ranks.h"

namespace rp {

std::unique_ptr<Ranks> make_ranks(const rp_ranks_options &options);

} // namespace rp
