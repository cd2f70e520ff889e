// Faults: the list of what shall go wrong, and which messages it strikes.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "direction.h"
#include "rpc_message.h"

namespace larder::proxy {

enum class Fault : std::uint8_t {
  kDrop,     // the message vanishes
  kHold,     // it waits until it is released
  kError,    // the proxy answers the call with an error, the server never sees it
  kCut,      // the connection ends in the middle of the message
  kCorrupt,  // the message is damaged
};

enum class Damage : std::uint8_t {
  kMark,     // the record mark announces two gigabytes
  kGarbage,  // all bytes after the xid are random
  kXid,      // the xid is another one
  kShort,    // the second half is missing, the record mark is right
};

struct FaultRule {
  static constexpr std::uint64_t kForever = std::numeric_limits<std::uint64_t>::max();

  Fault fault = Fault::kDrop;
  Direction direction = Direction::kCalls;
  std::optional<Procedure> procedure;  // nothing: all of them
  std::string handle;                  // empty: all of them
  std::uint64_t remaining = kForever;  // messages that it still strikes
  std::uint32_t number = 0;            // kError: the status; kCut: bytes that pass
  Damage damage = Damage::kMark;
};

// Threads: one.
class Faults {
 public:
  void add(FaultRule rule) { rules_.push_back(std::move(rule)); }

  // The first rule that strikes this message, which is used up by one.
  [[nodiscard]] std::optional<FaultRule> strike(Direction direction, Procedure procedure,
                                                std::string_view handle);

  // Rules of this kind end; only those of one procedure, if it is given.
  void end(Fault fault, std::optional<Procedure> procedure);

  void clear() { rules_.clear(); }

 private:
  std::vector<FaultRule> rules_;
};

}  // namespace larder::proxy
