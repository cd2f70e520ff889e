// The two directions in which messages travel through the proxy.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace larder::proxy {

enum class Direction : std::uint8_t {
  kCalls,    // from the client to the server
  kReplies,  // from the server to the client
};

inline constexpr std::array kBothWays{Direction::kCalls, Direction::kReplies};

[[nodiscard]] constexpr std::size_t index_of(Direction direction) {
  return static_cast<std::size_t>(direction);
}

using TimePoint = std::chrono::steady_clock::time_point;

}  // namespace larder::proxy
