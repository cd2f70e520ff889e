#include "cachefiles/graveyard.h"

#include <cstdint>
#include <optional>

#include "cachefiles/core.h"

namespace larder::cachefiles {

Graveyard::Graveyard(Core& core)
    : core_(core),
      graves_({.new_name = [&core] { return core.grave_name(); }, .spares = nullptr}) {}

bool Graveyard::empty_some() {
  const std::uint64_t buried = core_.buried();
  if (looked_at_ == buried) {
    return false;
  }
  const bool more = graves_.empty_some(*core_.graveyard);
  looked_at_ = more ? std::nullopt : std::optional(buried);
  return more;
}

}  // namespace larder::cachefiles
