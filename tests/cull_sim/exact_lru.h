// An exact LRU: what the culler is measured by. It knows the order of all uses.
#pragma once

#include "trace.h"

namespace larder::cull_sim {

[[nodiscard]] Hits run_exact_lru(const Trace& trace, double cull_part);

}  // namespace larder::cull_sim
