#include "os/resolver.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "os/stream.h"

namespace larder::os {

namespace {

Result<Addresses> look_up(const Endpoint& endpoint, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(endpoint.port);
  const int code = ::getaddrinfo(endpoint.host.c_str(), port.c_str(), &hints, &found);
  if (code != 0) {
    const bool later = code == EAI_AGAIN;
    return fail(
        Error(later ? Errc::kIo : Errc::kNotFound, later ? EAGAIN : ENXIO,
              fmt::format("no address for host {} ({})", endpoint.host, ::gai_strerror(code))));
  }
  Addresses addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    SocketAddress address;
    address.length = each->ai_addrlen;
    std::memcpy(&address.storage, each->ai_addr, each->ai_addrlen);
    addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  return addresses;
}

}  // namespace

Result<Addresses> resolve_numeric(const Endpoint& endpoint) {
  return look_up(endpoint, AI_NUMERICHOST);
}

void Resolver::resolve(const Endpoint& endpoint, Done done) {
  std::vector<Job> finished;  // joined after the lock is gone
  const MutexLock lock(mutex_);
  std::erase_if(jobs_, [&finished](Job& job) {
    const bool over = *job.finished;
    if (over) {
      finished.push_back(std::move(job));
    }
    return over;
  });
  auto flag = std::make_shared<bool>(false);
  jobs_.push_back(
      {flag, Thread("resolver", [this, endpoint, flag, done = std::move(done)]() mutable {
         done(look_up(endpoint, 0));
         const MutexLock job_lock(mutex_);
         *flag = true;
       })});
}

}  // namespace larder::os
