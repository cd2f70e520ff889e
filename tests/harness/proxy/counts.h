// Counts: what the proxy has seen since it was started or told to reset.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "direction.h"
#include "rpc_message.h"

namespace larder::proxy {

// Threads: one.
class Counts {
 public:
  void call(Procedure procedure, std::optional<std::uint32_t> uid);
  void reply(Procedure procedure);

  void read_data(std::uint32_t bytes) { read_bytes_ += bytes; }

  void received(Direction direction, std::uint64_t bytes) {
    bytes_.at(index_of(direction)) += bytes;
  }

  void accepted() { ++accepted_; }

  void struck() { ++struck_; }

  void in_flight(std::uint64_t calls);

  // Everything but what is true at the moment (`connections`, `held`) starts at 0 again.
  void reset() { *this = Counts(); }

  // One line of JSON; procedures that were not seen are left out.
  [[nodiscard]] std::string json(std::uint64_t connections, std::uint64_t held) const;

 private:
  using PerProcedure = std::array<std::uint64_t, kProcedureCount>;

  [[nodiscard]] static std::string json_of(const PerProcedure& counts, bool of_mount);
  [[nodiscard]] std::string json_of_uids() const;

  PerProcedure calls_{};
  PerProcedure replies_{};
  std::map<std::uint32_t, std::uint64_t> uids_;
  std::array<std::uint64_t, 2> bytes_{};
  std::uint64_t read_bytes_ = 0;
  std::uint64_t accepted_ = 0;
  std::uint64_t struck_ = 0;
  std::uint64_t most_in_flight_ = 0;
};

}  // namespace larder::proxy
