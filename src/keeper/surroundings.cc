#include "keeper/surroundings.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/result.h"
#include "base/unique_fd.h"
#include "os/signal_watch.h"

namespace larder::keeper {

Result<UniqueFd> watch_signals() {
  ::signal(SIGHUP, SIG_IGN);
  return os::watch_signals({SIGTERM, SIGINT});
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace larder::keeper
