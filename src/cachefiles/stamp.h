// Stamp: the moment, as far as crashes are concerned, at which something was written.
#pragma once

#include <compare>
#include <cstdint>

namespace larder::cachefiles {

// The generation counts starts of the cache, the epoch the syncs of one generation. {0, 0} stands
// for what was synced by itself before it got its name, and always counts.
struct Stamp {
  std::uint32_t generation = 0;
  std::uint32_t epoch = 0;

  auto operator<=>(const Stamp&) const = default;
};

}  // namespace larder::cachefiles
