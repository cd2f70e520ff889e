// Mailbox: where answers and state lines lie until the server's thread sends them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "control/cache_protocol.h"

namespace larder::control {

struct Letter {
  std::uint64_t connection = 0;
  std::vector<std::string> packets;  // of a reply
  std::optional<CacheState> state;   // unasked: a newer one takes its place
  bool closes = false;               // the connection is over
};

// Threads: any. Life: shared with the responders and the pushers, which may outlive the server.
class Mailbox {
 public:
  Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;
  virtual ~Mailbox() = default;

  // Letters of one connection are sent in the order in which they were put. Must not wait.
  virtual void put(Letter letter) = 0;
};

}  // namespace larder::control
