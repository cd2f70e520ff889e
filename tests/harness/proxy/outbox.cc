// Outbox and Shaper: a queue of slices with due times, sent with one gathering write.
#include "outbox.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "direction.h"

namespace larder::proxy {
namespace {

constexpr std::size_t kMaximumGather = 64;
constexpr std::size_t kPromptQueueBytes = std::size_t{2} << 20;
constexpr std::size_t kShapedQueueBytes = std::size_t{64} << 20;
constexpr std::size_t kRatedPieceBytes = std::size_t{16} << 10;

}  // namespace

Slice Slice::take(std::size_t count) {
  Slice taken{.block = block, .begin = begin, .length = count};
  begin += count;
  length -= count;
  return taken;
}

Slice copy_to_slice(Bytes bytes) {
  auto block = std::make_shared_for_overwrite<std::byte[]>(bytes.size());
  std::ranges::copy(bytes, block.get());
  return {.block = std::move(block), .begin = 0, .length = bytes.size()};
}

void Shaper::set_delay(std::chrono::nanoseconds delay, std::chrono::nanoseconds jitter) {
  delay_ = delay;
  jitter_ = jitter;
}

void Shaper::set_rate(double megabits_per_second) {
  nanoseconds_per_byte_ = megabits_per_second > 0 ? 8000.0 / megabits_per_second : 0;
  link_free_ = {};
}

void Shaper::set_segments(std::size_t bytes, std::chrono::nanoseconds gap) {
  segment_bytes_ = bytes;
  gap_ = gap;
}

TimePoint Shaper::arrival(TimePoint now, std::size_t length) {
  const auto busy = std::chrono::nanoseconds(
      static_cast<std::int64_t>(nanoseconds_per_byte_ * static_cast<double>(length)));
  link_free_ = std::max(link_free_, now) + busy + gap_;
  auto delay = delay_;
  if (jitter_.count() > 0) {
    delay += std::chrono::nanoseconds(
        std::uniform_int_distribution<std::int64_t>(0, jitter_.count())(random_));
  }
  return link_free_ + delay;
}

std::size_t Shaper::piece_bytes() const {
  if (segment_bytes_ != 0) {
    return segment_bytes_;
  }
  return nanoseconds_per_byte_ > 0 ? kRatedPieceBytes : 0;
}

std::size_t Shaper::queue_limit() const {
  return delay_.count() > 0 || jitter_.count() > 0 ? kShapedQueueBytes : kPromptQueueBytes;
}

void Outbox::push(Slice slice, TimePoint now, Shaper& shaper) {
  waiting_bytes_ += slice.length;
  const std::size_t step = shaper.piece_bytes() == 0 ? slice.length : shaper.piece_bytes();
  while (slice.length > 0) {
    Slice piece = slice.take(std::min(step, slice.length));
    const TimePoint due = shaper.arrival(now, piece.length);
    push_piece(std::move(piece), due, !shaper.sends_pieces_apart());
  }
}

// Bytes of one connection never overtake each other, whatever the jitter. Neighbours in the same
// block become one piece again.
void Outbox::push_piece(Slice piece, TimePoint due, bool may_join) {
  if (!queue_.empty()) {
    Waiting& last = queue_.back();
    due = std::max(due, last.due);
    if (may_join && due == last.due && last.slice.block == piece.block &&
        last.slice.begin + last.slice.length == piece.begin) {
      last.slice.length += piece.length;
      return;
    }
  }
  queue_.push_back({.slice = std::move(piece), .due = due});
}

bool Outbox::send_due(int socket, TimePoint now, const Shaper& shaper) {
  const std::size_t gather = shaper.sends_pieces_apart() ? 1 : kMaximumGather;
  while (!queue_.empty() && queue_.front().due <= now) {
    std::array<iovec, kMaximumGather> pieces{};
    std::size_t count = 0;
    while (count < std::min(gather, queue_.size()) && queue_[count].due <= now) {
      const Slice& slice = queue_[count].slice;
      pieces.at(count++) = {.iov_base = slice.block.get() + slice.begin, .iov_len = slice.length};
    }
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      return errno == EAGAIN || errno == EINTR;
    }
    drop_sent(static_cast<std::size_t>(sent));
  }
  return true;
}

void Outbox::drop_sent(std::size_t count) {
  waiting_bytes_ -= count;
  while (count > 0) {
    Slice& first = queue_.front().slice;
    const std::size_t part = std::min(count, first.length);
    first.begin += part;
    first.length -= part;
    count -= part;
    if (first.length == 0) {
      queue_.pop_front();
    }
  }
}

std::optional<TimePoint> Outbox::next_due() const {
  return queue_.empty() ? std::nullopt : std::optional(queue_.front().due);
}

}  // namespace larder::proxy
