#include "base/fault_point.h"

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#include <fmt/format.h>
#include <signal.h>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"

namespace larder {

namespace internal {

std::atomic<bool> any_fault_armed{false};

}  // namespace internal

namespace {

enum class FaultAction : std::uint8_t { kError, kDelay, kKill };

struct Fault {
  FaultAction action = FaultAction::kError;
  std::chrono::milliseconds delay{0};
  std::uint64_t left = std::numeric_limits<std::uint64_t>::max();
};

struct FaultTable {
  Mutex mutex{LockRank::kStats};
  std::map<std::string, Fault, std::less<>> faults GUARDED_BY(mutex);
};

FaultTable& table() {
  static FaultTable& instance = *new FaultTable;
  return instance;
}

Result<std::uint64_t> parse_number(std::string_view text, std::string_view part) {
  std::uint64_t value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) {
    return fail(Errc::kInvalid, fmt::format("fault point '{}': '{}' is not a number", part, text));
  }
  return value;
}

Result<Fault> parse_fault(std::string_view action, std::string_view part) {
  Fault fault;
  if (const auto star = action.find('*'); star != std::string_view::npos) {
    fault.left = TRY(parse_number(action.substr(star + 1), part));
    action = action.substr(0, star);
  }
  if (action == "error") {
    fault.action = FaultAction::kError;
  } else if (action == "kill") {
    fault.action = FaultAction::kKill;
  } else if (action.starts_with("delay:")) {
    fault.action = FaultAction::kDelay;
    fault.delay = std::chrono::milliseconds(TRY(parse_number(action.substr(6), part)));
  } else {
    return fail(Errc::kInvalid, fmt::format("fault point '{}': say error, delay:MS or kill", part));
  }
  return fault;
}

}  // namespace

Result<> arm_fault_points(std::string_view specification) {
  while (!specification.empty()) {
    const auto comma = specification.find(',');
    const std::string_view part = specification.substr(0, comma);
    specification =
        comma == std::string_view::npos ? std::string_view() : specification.substr(comma + 1);
    const auto equals = part.find('=');
    if (equals == std::string_view::npos) {
      return fail(Errc::kInvalid, fmt::format("fault point '{}': say name=action", part));
    }
    const Fault fault = TRY(parse_fault(part.substr(equals + 1), part));
    FaultTable& faults = table();
    const MutexLock lock(faults.mutex);
    faults.faults.insert_or_assign(std::string(part.substr(0, equals)), fault);
    internal::any_fault_armed.store(true, std::memory_order_relaxed);
  }
  return {};
}

Result<> internal::reach_fault_point(std::string_view name) {
  Fault fault;
  {
    FaultTable& faults = table();
    const MutexLock lock(faults.mutex);
    const auto found = faults.faults.find(name);
    if (found == faults.faults.end() || found->second.left == 0) {
      return {};
    }
    --found->second.left;
    fault = found->second;
  }
  switch (fault.action) {
    case FaultAction::kError:
      return fail(Errc::kIo, fmt::format("fault point {}", name));
    case FaultAction::kDelay:
      std::this_thread::sleep_for(fault.delay);
      return {};
    case FaultAction::kKill:
      ::raise(SIGKILL);
      return {};
  }
  return {};
}

}  // namespace larder
