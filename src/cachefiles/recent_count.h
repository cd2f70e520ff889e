// RecentCount: how often something happened in the last hour.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::cachefiles {

// By minutes, so that it forgets without a list. Threads: any. Life: the cache's.
class RecentCount {
 public:
  void add(MonotonicTime now) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    Minute& minute = minutes_.at(index(now));
    if (minute.number != number(now)) {
      minute = {number(now), 0};
    }
    ++minute.count;
  }

  [[nodiscard]] std::uint64_t in_last_hour(MonotonicTime now) const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    std::uint64_t sum = 0;
    for (const Minute& minute : minutes_) {
      const bool recent = minute.number + kMinutes > number(now) && minute.number <= number(now);
      sum += recent ? minute.count : 0;
    }
    return sum;
  }

 private:
  static constexpr std::int64_t kMinutes = 60;

  struct Minute {
    std::int64_t number = 0;
    std::uint64_t count = 0;
  };

  static std::int64_t number(MonotonicTime now) {
    return std::chrono::duration_cast<std::chrono::minutes>(now.time_since_epoch()).count();
  }

  static std::size_t index(MonotonicTime now) {
    return static_cast<std::size_t>(number(now) % kMinutes);
  }

  mutable Mutex mutex_{LockRank::kStats};
  std::array<Minute, kMinutes> minutes_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
