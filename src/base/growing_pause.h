// GrowingPause: how long to rest before something is tried again that keeps failing.
#pragma once

#include <algorithm>
#include <chrono>
#include <utility>

namespace larder {

// Twice as long each time, up to a bound. Threads: one at a time.
class GrowingPause {
 public:
  using milliseconds = std::chrono::milliseconds;

  constexpr GrowingPause(milliseconds first, milliseconds most)
      : first_(first), most_(most), next_(first) {}

  [[nodiscard]] milliseconds next() const { return next_; }

  // The next one; the one after it is longer.
  milliseconds take() { return std::exchange(next_, std::min(2 * next_, most_)); }

  // It went well: begins anew.
  void reset() { next_ = first_; }

 private:
  milliseconds first_, most_, next_;
};

}  // namespace larder
