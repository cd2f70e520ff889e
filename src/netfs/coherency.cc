#include "netfs/coherency.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>

#include "base/clock.h"
#include "base/endian.h"
#include "base/mutex.h"
#include "fscache/backend.h"
#include "netfs/attributes.h"

namespace larder::netfs {

namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
// Below this no server's granularity is believed: filesystems of one second (or of two, FAT) exist
// behind servers that claim a nanosecond.
constexpr std::int64_t kLeastWindow = 2 * kNanosecondsPerSecond;
constexpr unsigned kNanosecondBits = 30;

std::uint64_t pack(Timestamp time) {
  return (static_cast<std::uint64_t>(time.seconds) << kNanosecondBits) | time.nanoseconds;
}

// Stamps outside of years 1678 to 2262 are pressed into them: a bound stays a bound.
std::int64_t nanoseconds_of(Timestamp time) {
  constexpr std::int64_t kMostSeconds =
      std::numeric_limits<std::int64_t>::max() / kNanosecondsPerSecond / 2;
  return std::clamp(time.seconds, -kMostSeconds, kMostSeconds) * kNanosecondsPerSecond +
         time.nanoseconds;
}

std::int64_t nanoseconds_of(MonotonicTime time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

}  // namespace

fscache::CoherencyData coherency_of(const Attributes& attributes) {
  fscache::CoherencyData data{};
  store_be(data.data(), pack(attributes.modified));
  store_be(data.data() + sizeof(std::uint64_t), pack(attributes.changed));
  return data;
}

bool same_version(const Attributes& a, const Attributes& b) {
  return a.size == b.size && a.modified == b.modified && a.changed == b.changed;
}

ServerTime::ServerTime(Timestamp granularity)
    : window_ns_(std::max(nanoseconds_of(granularity), kLeastWindow)),
      offset_ns_(std::numeric_limits<std::int64_t>::min() / 2) {}

void ServerTime::observe(Timestamp changed, MonotonicTime now) {
  const std::int64_t offset = nanoseconds_of(changed) - nanoseconds_of(now);
  const MutexLock lock(mutex_);
  offset_ns_ = std::max(offset_ns_, offset);
}

bool ServerTime::is_settled(const Attributes& attributes, MonotonicTime now) const {
  const std::int64_t changed =
      std::max(nanoseconds_of(attributes.changed), nanoseconds_of(attributes.modified));
  const MutexLock lock(mutex_);
  return nanoseconds_of(now) + offset_ns_ >= changed + window_ns_;
}

}  // namespace larder::netfs
