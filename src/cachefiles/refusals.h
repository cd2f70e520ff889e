// Refusals: whether a cache that is full keeps nothing new, and what is known of the reason.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::cachefiles {

// Readers may be faster than a cull for a moment. It is another thing when something was refused
// lately, and nothing was culled since it was first. `culled` is everywhere: objects, ever.
// Threads: any. Life: the cache's.
class Refusals {
 public:
  static constexpr std::chrono::seconds kPatience{1};
  static constexpr std::chrono::minutes kLately{1};

  // Something was not kept for lack of room.
  void note(std::uint64_t culled, MonotonicTime now) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (!last_ || now - *last_ > kLately || culled != culled_) {
      first_ = now;
      culled_ = culled;
    }
    last_ = now;
  }

  // A caretaker's cull met nothing but what is in use.
  void note_in_vain(std::uint64_t culled) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    in_vain_ = culled;
  }

  // There is room again.
  void forget() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    last_.reset();
    in_vain_.reset();
  }

  // Nothing new is kept.
  [[nodiscard]] bool go_on(std::uint64_t culled, MonotonicTime now) const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return last_ && now - *last_ <= kLately && culled == culled_ && now - first_ >= kPatience;
  }

  // A caretaker tried, and has culled nothing since.
  [[nodiscard]] bool in_vain(std::uint64_t culled) const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return in_vain_ == culled;
  }

 private:
  mutable Mutex mutex_{LockRank::kStats};
  std::optional<MonotonicTime> last_ GUARDED_BY(mutex_);
  MonotonicTime first_ GUARDED_BY(mutex_);  // since something was culled
  std::uint64_t culled_ GUARDED_BY(mutex_) = 0;
  std::optional<std::uint64_t> in_vain_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
