// Signals: what the daemon is told from outside: to stop, to read its configuration again.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/waiter.h"

namespace larder::cachefilesd {

// SIGTERM and SIGINT: stop; SIGHUP: reload. SIGPIPE is ignored from then on. Life: one a process.
class Signals final : public Waiter {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Signals>> watch();

  Woken wait(std::span<const int> descriptors, std::optional<Duration> at_most) override;
  bool told_to_stop() override;
  bool told_to_reload() override;

 private:
  explicit Signals(UniqueFd descriptor) : descriptor_(std::move(descriptor)) {}

  // True: there were some.
  bool take_signals();

  const UniqueFd descriptor_;
  bool stop_ = false;
  bool reload_ = false;
};

}  // namespace larder::cachefilesd
