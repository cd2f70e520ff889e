// Resolver: host names to socket addresses, on threads of its own, because getaddrinfo(3) waits.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/thread_annotations.h"
#include "os/stream.h"

namespace larder::os {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

using Addresses = std::vector<SocketAddress>;

// At once, without a network: when the host is a numeric address. Otherwise kNotFound.
[[nodiscard]] Result<Addresses> resolve_numeric(const Endpoint& endpoint);

// Threads: any. Life: the destructor waits for names that are being looked up (the system's
// resolver cannot be interrupted); their `done` has run then.
class Resolver {
 public:
  using Done = std::move_only_function<void(Result<Addresses>)>;

  Resolver() = default;
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  ~Resolver() = default;

  // `done` runs on a thread of the resolver. Not empty when it is well.
  void resolve(const Endpoint& endpoint, Done done) EXCLUDES(mutex_);

 private:
  struct Job {
    std::shared_ptr<bool> finished;  // guarded by mutex_
    Thread thread;
  };

  Mutex mutex_{LockRank::kQueue};
  std::vector<Job> jobs_ GUARDED_BY(mutex_);
};

}  // namespace larder::os
