// CacheLimits: how much of a cache's filesystem must be free, and how a cache channel is told.
//
// Threads: plain functions on values.
#pragma once

#include <cstdint>
#include <vector>

#include "control/cache_protocol.h"

namespace larder::control {

// Percent of the blocks, or of the inodes, as the kernel has them when nobody says anything.
// 0 <= stop < cull < run < 100.
struct CacheLimits {
  std::uint64_t run = 7;
  std::uint64_t cull = 5;
  std::uint64_t stop = 1;

  friend bool operator==(const CacheLimits&, const CacheLimits&) = default;
};

// The commands that set the three.
struct LimitVerbs {
  CacheVerb run, cull, stop;
};

inline constexpr LimitVerbs kBlockVerbs{CacheVerb::kBrun, CacheVerb::kBcull, CacheVerb::kBstop};
inline constexpr LimitVerbs kInodeVerbs{CacheVerb::kFrun, CacheVerb::kFcull, CacheVerb::kFstop};

// After them these limits hold, whatever held before; no step is one that the other end refuses.
[[nodiscard]] std::vector<CacheCommand> limit_commands(const CacheLimits& blocks,
                                                       const CacheLimits& inodes);

}  // namespace larder::control
