// CacheSession: the engine's end of a cache channel, behind the server.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/mailbox.h"
#include "control/server.h"
#include "os/packet_socket.h"

namespace larder::control {

// Pushes state lines to the holder of a channel. Threads: any. Life: may outlive the connection and
// the server; lines are dropped then.
class StatePusher {
 public:
  StatePusher(std::shared_ptr<Mailbox> mailbox, std::uint64_t connection)
      : mailbox_(std::move(mailbox)), connection_(connection) {}

  // Who does not read gets the newest only.
  void push(const CacheState& state) const;
  // Ends the connection, from our side.
  void hang_up() const;

 private:
  std::shared_ptr<Mailbox> mailbox_;
  std::uint64_t connection_;
};

// Threads: the server's; must not wait. Life: the connection's: destroyed when the holder hung up,
// which is the release of what it holds.
class CacheSession {
 public:
  CacheSession() = default;
  CacheSession(const CacheSession&) = delete;
  CacheSession& operator=(const CacheSession&) = delete;
  virtual ~CacheSession() = default;

  // One at a time: the next comes after the answer. `descriptors`: what travelled with the packet.
  virtual void execute(CacheCommand command, std::vector<UniqueFd> descriptors,
                       Responder responder) = 0;
};

}  // namespace larder::control
