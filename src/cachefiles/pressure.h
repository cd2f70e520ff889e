// Pressure: whether a cache needs room, and what it holds is in use, so that nobody can make any.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>

#include "base/clock.h"

namespace larder::cachefiles {

// Our own cull knows it when it has looked at everything. What a caretaker finds nobody tells: if
// nothing was culled for a moment, though room was short and something was refused, he has found
// nothing either.
// Threads: note_refused() any, the others that of maintenance. Life: the cache's.
class Pressure {
 public:
  static constexpr std::chrono::milliseconds kPatience{500};

  // Something was not kept for lack of room.
  void note_refused() { refused_ = true; }

  // A cull of our own met nothing but what is in use.
  void note_in_vain() { in_vain_ = true; }

  // Whether it is so; the next time not before there is reason again. `culled`: objects, ever.
  [[nodiscard]] bool take(bool culling, std::uint64_t culled, MonotonicTime now) {
    const bool refused = refused_.exchange(false);
    const bool in_vain = std::exchange(in_vain_, false);
    if (!culling) {
      waits_ = false;
      return false;
    }
    if (!waits_ || culled != culled_) {
      waits_ = true;
      culled_ = culled;
      since_ = now;
    }
    if (!in_vain && (!refused || now - since_ < kPatience)) {
      return false;
    }
    since_ = now;  // what is given up now is to be found first
    return true;
  }

 private:
  std::atomic<bool> refused_{false};
  bool in_vain_ = false;
  bool waits_ = false;  // for something to be culled
  std::uint64_t culled_ = 0;
  MonotonicTime since_;  // nothing was culled
};

}  // namespace larder::cachefiles
