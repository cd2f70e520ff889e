#include "keeper/surroundings.h"

#include <cerrno>

#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::keeper {

Result<UniqueFd> watch_signals() {
  sigset_t watched;
  ::sigemptyset(&watched);
  for (const int number : {SIGTERM, SIGINT}) {
    ::signal(number, SIG_DFL);  // an ignored signal would never arrive
    ::sigaddset(&watched, number);
  }
  ::signal(SIGPIPE, SIG_IGN);  // stderr may be a pipe whose reader is gone
  ::signal(SIGHUP, SIG_IGN);
  ::pthread_sigmask(SIG_BLOCK, &watched, nullptr);
  UniqueFd descriptor(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!descriptor.valid()) {
    return fail_errno(errno, "signalfd");
  }
  return descriptor;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace larder::keeper
