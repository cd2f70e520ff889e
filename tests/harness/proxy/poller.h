// Poller: epoll with tags; remembers what each descriptor waits for.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>

#include <sys/epoll.h>

#include "base/unique_fd.h"

namespace larder::proxy {

// Threads: one.
class Poller {
 public:
  enum class Source : std::uint8_t { kListener, kControl, kSignal, kCalls, kReplies };

  struct Event {
    Source source;
    std::uint64_t id;  // given to watch(); below 2^56
    std::uint32_t events;
  };

  Poller();

  // Waits for `events` (EPOLLIN, EPOLLOUT) on `fd` from now on; errors are always reported.
  void watch(int fd, Source source, std::uint64_t id, std::uint32_t events);
  // Call before the descriptor is closed.
  void forget(int fd);

  // Valid until the next call. Without a timeout it waits until something happens.
  std::span<const Event> wait(std::optional<std::chrono::nanoseconds> timeout);

 private:
  static constexpr std::size_t kBatch = 64;

  UniqueFd epoll_;
  std::unordered_map<int, std::uint32_t> watched_;
  std::array<Event, kBatch> batch_{};
};

}  // namespace larder::proxy
