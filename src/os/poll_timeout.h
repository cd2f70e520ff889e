// How long poll(2) is to wait.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>

#include "base/clock.h"

namespace larder::os {

// In its milliseconds: rounded up, so that nobody wakes just before; -1, for ever, for nullopt.
[[nodiscard]] inline int poll_timeout(std::optional<Duration> left) {
  if (!left) {
    return -1;
  }
  const auto count = std::chrono::ceil<std::chrono::milliseconds>(*left).count();
  return static_cast<int>(std::clamp<std::int64_t>(count, 0, std::numeric_limits<int>::max()));
}

}  // namespace larder::os
