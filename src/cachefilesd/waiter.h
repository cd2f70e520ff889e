// Waiter: the one place where the daemon waits, which ends whenever it is told something.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "base/clock.h"

namespace larder::cachefilesd {

// Threads: the daemon's one.
class Waiter {
 public:
  enum class Woken : std::uint8_t {
    kReady,     // there is something to read, or a peer hung up
    kTimedOut,  // the time has passed
    kTold,      // to stop, or to read the configuration again: ask which
  };

  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  virtual ~Waiter() = default;

  // Until one of `descriptors` can be read (those below 0 never can), `at_most` has passed
  // (nullopt: never), or something new is told.
  [[nodiscard]] virtual Woken wait(std::span<const int> descriptors,
                                   std::optional<Duration> at_most) = 0;
  // From the first time on for ever. Cheap, waits for nothing.
  [[nodiscard]] virtual bool told_to_stop() = 0;
  // Since this was asked last.
  [[nodiscard]] virtual bool told_to_reload() = 0;
};

}  // namespace larder::cachefilesd
