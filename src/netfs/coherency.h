// Coherency: how the server's stamps tell one version of a file from the next, and when they can be
// trusted to.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "fscache/backend.h"
#include "netfs/attributes.h"

namespace larder::netfs {

// mtime and ctime, each big-endian 64 bits: 34 of seconds, 30 of nanoseconds
// (docs/on-disk-format.md).
[[nodiscard]] fscache::CoherencyData coherency_of(const Attributes& attributes);

// Size, mtime and ctime agree: for all that NFSv3 can tell, the bytes are the same.
[[nodiscard]] bool same_version(const Attributes& a, const Attributes& b);

// What we know of a server's clock: a bound from below, from the change times that it hands out and
// our own monotonic clock. The local wall clock plays no part.
// Threads: any.
class ServerTime {
 public:
  // `granularity`: FSINFO's time_delta; versions younger than the larger of it and 2 s are racy.
  explicit ServerTime(Timestamp granularity);

  // How long after a change another one may leave the stamps as they are.
  [[nodiscard]] Duration window() const { return std::chrono::nanoseconds(window_ns_); }

  // The server said, at `now` of our clock, that something changed at `changed` of its own.
  void observe(Timestamp changed, MonotonicTime now) EXCLUDES(mutex_);
  // False: at `now` a further change could still leave the stamps as they are.
  [[nodiscard]] bool is_settled(const Attributes& attributes, MonotonicTime now) const
      EXCLUDES(mutex_);

 private:
  const std::int64_t window_ns_;
  mutable Mutex mutex_{LockRank::kStats};
  std::int64_t offset_ns_ GUARDED_BY(mutex_);  // server's clock minus ours is at least this
};

}  // namespace larder::netfs
