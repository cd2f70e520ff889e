// Limits: how much of its filesystem must be free for a cache to grow, to be culled, to stop.
#pragma once

#include <vector>

#include "base/result.h"
#include "control/cache_protocol.h"

namespace larder::cachefilesd {

// Percent. 0 <= stop < cull < run < 100, of inodes (f) and of blocks (b). As a kernel's cache has
// them that was told nothing; an engine's has others then.
struct Limits {
  unsigned frun = 7, fcull = 5, fstop = 1;
  unsigned brun = 7, bcull = 5, bstop = 1;

  friend bool operator==(const Limits&, const Limits&) = default;
};

// The limit that a command sets; null: it sets none.
[[nodiscard]] unsigned Limits::* limit_of(control::CacheVerb verb);

// Sets one. kInvalid: it would not lie between its neighbours as they are now, which is what the
// kernel checks; the sentence says which.
[[nodiscard]] Result<> set_limit(Limits& limits, control::CacheVerb verb, unsigned percent);

// The commands after which they hold, whatever held before.
[[nodiscard]] std::vector<control::CacheCommand> limit_commands(const Limits& limits);

}  // namespace larder::cachefilesd
