#include "keeper/surroundings.h"

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

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

void notify_service_manager(std::string_view state) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing of ours changes the environment
  const char* const path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) {
    return;
  }
  address.sun_family = AF_UNIX;
  std::memcpy(&address.sun_path, path, std::strlen(path));
  if (address.sun_path[0] == '@') {
    address.sun_path[0] = '\0';
  }
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return;
  }
  const auto length = static_cast<unsigned>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace larder::keeper
