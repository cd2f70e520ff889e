#include "cachefiles/graveyard.h"

#include <cstdint>

#include "cachefiles/core.h"

namespace larder::cachefiles {

Graveyard::Graveyard(Core& core)
    : core_(core),
      graves_({.new_name = [&core] { return core.grave_name(); }, .spares = nullptr}) {}

bool Graveyard::empty_some() {
  const std::uint64_t buried = core_.buried();
  if (begun_ && looked_at_ == buried) {
    return false;
  }
  begun_ = true;
  const bool more = graves_.empty_some(*core_.graveyard);
  if (!more) {
    looked_at_ = buried;
  }
  return more;
}

}  // namespace larder::cachefiles
