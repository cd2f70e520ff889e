// Poller: epoll with tags.
#include "poller.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <span>

#include <sys/epoll.h>

#include "base/check.h"

namespace larder::proxy {
namespace {

constexpr unsigned kSourceShift = 56;
constexpr std::uint64_t kIdMask = (std::uint64_t{1} << kSourceShift) - 1;

}  // namespace

Poller::Poller() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  CHECK(epoll_.valid());
}

void Poller::watch(int fd, Source source, std::uint64_t id, std::uint32_t events) {
  const auto known = watched_.find(fd);
  if (known != watched_.end() && known->second == events) {
    return;
  }
  epoll_event event{};
  event.events = events;
  event.data.u64 = (static_cast<std::uint64_t>(source) << kSourceShift) | (id & kIdMask);
  const int operation = known == watched_.end() ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  CHECK(::epoll_ctl(epoll_.get(), operation, fd, &event) == 0);
  watched_[fd] = events;
}

void Poller::forget(int fd) {
  if (watched_.erase(fd) != 0) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  }
}

std::span<const Poller::Event> Poller::wait(std::optional<std::chrono::nanoseconds> timeout) {
  std::array<epoll_event, kBatch> events{};
  timespec limit{};
  if (timeout) {
    const auto nanoseconds = std::max<std::int64_t>(timeout->count(), 0);
    limit = {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
  }
  const int count = ::epoll_pwait2(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   timeout ? &limit : nullptr, nullptr);
  const auto seen = static_cast<std::size_t>(std::max(count, 0));
  for (std::size_t i = 0; i < seen; ++i) {
    const std::uint64_t tag = events.at(i).data.u64;
    batch_.at(i) = {.source = static_cast<Source>(tag >> kSourceShift),
                    .id = tag & kIdMask,
                    .events = events.at(i).events};
  }
  return std::span(batch_).first(seen);
}

}  // namespace larder::proxy
