// Outbox: the bytes that wait to be sent on one socket; Shaper: the link that decides when.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "base/bytes.h"
#include "direction.h"

namespace larder::proxy {

// A run of bytes in a shared block: what was received is passed on without being copied.
struct Slice {
  std::shared_ptr<std::byte[]> block;
  std::size_t begin = 0;
  std::size_t length = 0;

  [[nodiscard]] Bytes bytes() const { return {block.get() + begin, length}; }

  // Takes the first `count` bytes off.
  [[nodiscard]] Slice take(std::size_t count);
};

[[nodiscard]] Slice copy_to_slice(Bytes bytes);

// One direction of the link that all connections share: delay, jitter, rate, sizes of segments.
// Threads: one.
class Shaper {
 public:
  void set_delay(std::chrono::nanoseconds delay, std::chrono::nanoseconds jitter);

  // 0 means without limit.
  void set_rate(double megabits_per_second);

  // Sent in pieces of at most `bytes` (0: as they come), `gap` apart.
  void set_segments(std::size_t bytes, std::chrono::nanoseconds gap);

  // When `length` bytes that are ready at `now` reach the other end.
  [[nodiscard]] TimePoint arrival(TimePoint now, std::size_t length);

  // The largest piece that arrival() and one send() should be given; 0 means any.
  [[nodiscard]] std::size_t piece_bytes() const;

  [[nodiscard]] bool sends_pieces_apart() const { return segment_bytes_ != 0; }

  // Above this many waiting bytes nothing more is received.
  [[nodiscard]] std::size_t queue_limit() const;

 private:
  std::chrono::nanoseconds delay_{0};
  std::chrono::nanoseconds jitter_{0};
  std::chrono::nanoseconds gap_{0};
  double nanoseconds_per_byte_ = 0;
  std::size_t segment_bytes_ = 0;
  TimePoint link_free_{};
  std::minstd_rand random_{1};  // the jitter is the same in every run
};

// Threads: one.
class Outbox {
 public:
  void push(Slice slice, TimePoint now, Shaper& shaper);

  // Sends what is due as far as the socket takes it. False if the connection is broken.
  [[nodiscard]] bool send_due(int socket, TimePoint now, const Shaper& shaper);

  [[nodiscard]] bool empty() const { return queue_.empty(); }

  [[nodiscard]] std::size_t waiting_bytes() const { return waiting_bytes_; }

  // When the first bytes are due, if there are any.
  [[nodiscard]] std::optional<TimePoint> next_due() const;

 private:
  struct Waiting {
    Slice slice;
    TimePoint due;
  };

  void push_piece(Slice piece, TimePoint due, bool may_join);
  void drop_sent(std::size_t count);

  std::deque<Waiting> queue_;
  std::size_t waiting_bytes_ = 0;
};

}  // namespace larder::proxy
