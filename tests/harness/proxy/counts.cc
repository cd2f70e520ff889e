// Counts: numbers, and their JSON.
#include "counts.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <fmt/core.h>

#include "direction.h"
#include "rpc_message.h"

namespace larder::proxy {
namespace {

constexpr std::size_t kMaximumUids = 4096;

}  // namespace

void Counts::call(Procedure procedure, std::optional<std::uint32_t> uid) {
  ++calls_.at(static_cast<std::size_t>(procedure));
  if (uid && (uids_.size() < kMaximumUids || uids_.contains(*uid))) {
    ++uids_[*uid];
  }
}

void Counts::reply(Procedure procedure) {
  ++replies_.at(static_cast<std::size_t>(procedure));
}

void Counts::in_flight(std::uint64_t calls) {
  most_in_flight_ = std::max(most_in_flight_, calls);
}

std::string Counts::json(std::uint64_t connections, std::uint64_t held) const {
  return fmt::format(R"({{"calls":{},"replies":{},"mount_calls":{},"uids":{},"read_bytes":{},)"
                     R"("bytes_to_server":{},"bytes_to_client":{},"accepted":{},"connections":{},)"
                     R"("struck":{},"held":{},"most_in_flight":{}}})",
                     json_of(calls_, false), json_of(replies_, false), json_of(calls_, true),
                     json_of_uids(), read_bytes_, bytes_.at(index_of(Direction::kCalls)),
                     bytes_.at(index_of(Direction::kReplies)), accepted_, connections, struck_,
                     held, most_in_flight_);
}

std::string Counts::json_of(const PerProcedure& counts, bool of_mount) {
  std::string text;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const auto procedure = static_cast<Procedure>(i);
    if (counts.at(i) != 0 && is_mount(procedure) == of_mount) {
      text +=
          fmt::format(R"({}"{}":{})", text.empty() ? "" : ",", name_of(procedure), counts.at(i));
    }
  }
  return "{" + text + "}";
}

std::string Counts::json_of_uids() const {
  std::string text;
  for (const auto& [uid, calls] : uids_) {
    text += fmt::format(R"({}"{}":{})", text.empty() ? "" : ",", uid, calls);
  }
  return "{" + text + "}";
}

}  // namespace larder::proxy
