// Named places where a test or an administrator can make the shipped program fail, wait or die.
//
// Off, a fault point is one relaxed load. They are armed by the environment variable LARDER_FAULTS:
// "name=action[*count][,...]", action one of: error (EIO), delay:MS, kill (SIGKILL of this
// process).
#pragma once

#include <atomic>
#include <string_view>

#include "base/result.h"

namespace larder {

// Reads `specification` as above; an error names the part that makes no sense. Call once at start.
[[nodiscard]] Result<> arm_fault_points(std::string_view specification);

namespace internal {

extern std::atomic<bool> any_fault_armed;
Result<> reach_fault_point(std::string_view name);

}  // namespace internal

// Passes, or does what `name` was armed with.
[[nodiscard]] inline Result<> fault_point(std::string_view name) {
  if (!internal::any_fault_armed.load(std::memory_order_relaxed)) [[likely]] {
    return {};
  }
  return internal::reach_fault_point(name);
}

}  // namespace larder
