#include "cachefilesd/signals.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/waiter.h"

namespace larder::cachefilesd {
namespace {

// What poll(2) takes; rounded up, so that nobody wakes just before.
int milliseconds_of(std::optional<Duration> at_most) {
  if (!at_most) {
    return -1;
  }
  const auto count = std::chrono::ceil<std::chrono::milliseconds>(*at_most).count();
  return static_cast<int>(std::clamp<std::int64_t>(count, 0, std::numeric_limits<int>::max()));
}

}  // namespace

Result<std::unique_ptr<Signals>> Signals::watch() {
  sigset_t watched;
  ::sigemptyset(&watched);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) {
    ::signal(number, SIG_DFL);  // an ignored signal would never arrive
    ::sigaddset(&watched, number);
  }
  ::signal(SIGPIPE, SIG_IGN);
  ::pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  UniqueFd descriptor(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor.valid()) {
    return fail_errno(errno, "signalfd");
  }
  return std::unique_ptr<Signals>(new Signals(std::move(descriptor)));
}

Waiter::Woken Signals::wait(std::span<const int> descriptors, std::optional<Duration> at_most) {
  std::vector<pollfd> polled{{descriptor_.get(), POLLIN, 0}};
  for (const int descriptor : descriptors) {
    polled.push_back({descriptor, POLLIN, 0});
  }
  const int ready = ::poll(polled.data(), polled.size(), milliseconds_of(at_most));
  if (take_signals()) {
    return Woken::kTold;
  }
  return ready == 0 ? Woken::kTimedOut : Woken::kReady;
}

bool Signals::told_to_stop() {
  take_signals();
  return stop_;
}

bool Signals::told_to_reload() {
  take_signals();
  return std::exchange(reload_, false);
}

bool Signals::take_signals() {
  signalfd_siginfo told{};
  bool any = false;
  while (::read(descriptor_.get(), &told, sizeof told) == sizeof told) {
    any = true;
    if (told.ssi_signo == SIGHUP) {
      reload_ = true;
    } else {
      stop_ = true;
    }
  }
  return any;
}

}  // namespace larder::cachefilesd
