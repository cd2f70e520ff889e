// Behaviour: what the proxy does to messages at the moment, and what it has seen; all connections
// share one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

#include "alterations.h"
#include "counts.h"
#include "direction.h"
#include "faults.h"
#include "outbox.h"
#include "rpc_message.h"

namespace larder::proxy {

// A message that waits in the proxy until it is released or its connection ends.
struct HeldMessage {
  std::uint64_t connection = 0;
  Direction direction = Direction::kCalls;
  Procedure procedure = Procedure::kOther;
  std::vector<std::byte> message;  // without marks
};

// Threads: one.
struct Behaviour {
  static constexpr std::size_t kMaximumHeldBytes = std::size_t{256} << 20;

  Faults faults;
  Alterations alterations;
  Counts counts;
  std::array<Shaper, 2> shapers;
  std::size_t fragment_bytes = 0;  // replies are sent in fragments of this size; 0: as they came
  bool swallow = false;            // calls and replies vanish
  std::deque<HeldMessage> held;
  std::size_t held_bytes = 0;
  std::minstd_rand random{1};
};

}  // namespace larder::proxy
