#include "cachefilesd/signals.h"

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
#include "os/poll_timeout.h"
#include "os/signal_watch.h"

namespace larder::cachefilesd {

Result<std::unique_ptr<Signals>> Signals::watch() {
  UniqueFd descriptor = TRY(os::watch_signals({SIGTERM, SIGINT, SIGHUP}));
  return std::unique_ptr<Signals>(new Signals(std::move(descriptor)));
}

Waiter::Woken Signals::wait(std::span<const int> descriptors, std::optional<Duration> at_most) {
  std::vector<pollfd> polled{{descriptor_.get(), POLLIN, 0}};
  for (const int descriptor : descriptors) {
    polled.push_back({descriptor, POLLIN, 0});
  }
  const int ready = ::poll(polled.data(), polled.size(), os::poll_timeout(at_most));
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
