#include "cachefiles/graveyard.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/clock.h"
#include "base/result.h"
#include "cachefiles/core.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::chrono::milliseconds kLongestStep{20};
constexpr std::chrono::minutes kLookAgainAfter{1};  // at what could not be removed

}  // namespace

Graveyard::Graveyard(Core& core)
    : core_(core),
      graves_({.new_name = [&core] { return core.grave_name(); }, .spares = nullptr}) {}

bool Graveyard::empty_some() {
  const std::uint64_t buried = core_.buried();
  const MonotonicTime now = core_.clock.now();
  const bool again = again_ && now >= *again_;
  if (looked_at_ == buried && !again) {
    return false;
  }
  if (again) {
    again_.reset();
    graves_.try_again();
  }
  const Result<std::unique_ptr<os::Directory>> graveyard = core_.open_graveyard();
  if (!graveyard) {
    return false;
  }
  // Large files take long to remove, and a cull may be due meanwhile.
  const MonotonicTime until = now + kLongestStep;
  const bool more = graves_.empty_some(**graveyard, [&] { return core_.clock.now() < until; });
  looked_at_ = more ? std::nullopt : std::optional(buried);
  if (!more && graves_.anything_stays() && !again_) {
    again_ = now + kLookAgainAfter;
  }
  return more;
}

}  // namespace larder::cachefiles
