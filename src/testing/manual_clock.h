// A Clock that only the test moves.
#pragma once

#include <atomic>
#include <chrono>

#include "base/clock.h"

namespace larder::testing {

// Threads: any.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] MonotonicTime now() const override {
    return MonotonicTime(Duration(ticks_.load()));
  }

  void advance(Duration by) { ticks_ += by.count(); }

 private:
  // Not zero: a time in the past of the first moment must be sayable.
  std::atomic<Duration::rep> ticks_{
      std::chrono::duration_cast<Duration>(std::chrono::hours(1000)).count()};
};

}  // namespace larder::testing
