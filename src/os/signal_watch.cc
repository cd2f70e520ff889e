#include "os/signal_watch.h"

#include <cerrno>
#include <initializer_list>

#include <signal.h>
#include <sys/signalfd.h>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::os {

Result<UniqueFd> watch_signals(std::initializer_list<int> signals) {
  sigset_t watched;
  ::sigemptyset(&watched);
  for (const int number : signals) {
    ::signal(number, SIG_DFL);  // an ignored signal would never arrive
    ::sigaddset(&watched, number);
  }
  ::signal(SIGPIPE, SIG_IGN);
  ::pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  UniqueFd descriptor(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor.valid()) {
    return fail_errno(errno, "signalfd");
  }
  return descriptor;
}

}  // namespace larder::os
