// A cache in memory that the culling library culls, as it does the engine's.
#pragma once

#include <cstdint>

#include "culling/candidate.h"
#include "trace.h"

namespace larder::cull_sim {

struct SlicedRun {
  Hits hits;
  std::uint64_t looked_at = 0;  // objects
  culling::Freed culled;
  double culled_room = 0;  // in objects, had they been of the mean size of the moment
};

// Last use is stamped as coarsely as the engine does it; `seed` decides in which directory an
// object is. Objects are not in use beyond the moment of a request.
[[nodiscard]] SlicedRun run_slices(const Trace& trace, double cull_part, std::uint64_t seed);

}  // namespace larder::cull_sim
