// Graveyard: the engine's own look at it, where no daemon cares for a cache.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "cachefiles/core.h"
#include "culling/graves.h"

namespace larder::cachefiles {

// Threads: the one that maintains. Life: the cache's, from when its directories are open.
class Graveyard {
 public:
  explicit Graveyard(Core& core);

  // Blocks for some 128 names, or 20 ms. True: there is more to do.
  bool empty_some();

 private:
  Core& core_;
  culling::Graves graves_;
  std::optional<std::uint64_t> looked_at_;  // burials, when all that can go was gone
  std::optional<MonotonicTime> again_;      // some stayed
};

}  // namespace larder::cachefiles
