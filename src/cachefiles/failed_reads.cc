#include "cachefiles/failed_reads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "base/byte_range.h"
#include "base/clock.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

// The kernel is asked for a part of a file at a time: the first one, and others in turn.
constexpr std::uint64_t kPartBytes = std::uint64_t{4} * 1024 * 1024;
constexpr std::uint64_t kMostOthers = 15;
constexpr std::uint64_t kPageBytes = 4096;  // or a part of a page

constexpr std::int64_t kPriceOfTime = 100;
// All parts take less: for the rest somebody else had the processor.
constexpr std::chrono::nanoseconds kLongestLook = std::chrono::milliseconds(3);
constexpr std::chrono::nanoseconds kAdvance = kPriceOfTime * std::chrono::milliseconds(1);

std::int64_t nanoseconds_of(MonotonicTime time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

// Nothing is known where the kernel does not tell.
std::optional<os::PagesInMemory> pages_in(os::File& file, ByteRange range) {
  const Result<os::PagesInMemory> pages = file.pages_in_memory(range.offset, range.length);
  return pages ? std::optional(*pages) : std::nullopt;
}

bool has_unread(os::File& file, ByteRange range) {
  const auto pages = pages_in(file, range);
  return pages && pages->all > pages->ready;
}

// A page of `range`, in which something is unread; nullopt: not any more.
std::optional<std::uint64_t> narrow(os::File& file, ByteRange range) {
  while (range.length > kPageBytes) {
    const std::uint64_t middle =
        range.offset + (range.length / 2 + kPageBytes - 1) / kPageBytes * kPageBytes;
    const ByteRange first = ByteRange::between(range.offset, middle);
    const ByteRange second = ByteRange::between(middle, range.end());
    range = has_unread(file, first) ? first : second;
  }
  return has_unread(file, range) ? std::optional(range.offset) : std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> FailedReads::find(os::File& file, std::uint64_t size,
                                               const Clock& clock) {
  const MonotonicTime begin = clock.now();
  if (!is_time(begin)) {
    return std::nullopt;
  }
  const std::optional<std::uint64_t> found = look(file, size);
  spend(begin, clock.now());
  return found;
}

bool FailedReads::is_time(MonotonicTime now) const {
  return paid_until_.load(std::memory_order_relaxed) <= nanoseconds_of(now) + kAdvance.count();
}

// Two who look at once may forget what one of them spent.
void FailedReads::spend(MonotonicTime since, MonotonicTime until) {
  const std::int64_t paid =
      std::max(paid_until_.load(std::memory_order_relaxed), nanoseconds_of(since));
  const auto spent = std::min(std::chrono::nanoseconds(until - since), kLongestLook);
  paid_until_.store(paid + kPriceOfTime * spent.count(), std::memory_order_relaxed);
}

std::optional<std::uint64_t> FailedReads::look(os::File& file, std::uint64_t size) {
  const ByteRange all{0, size};
  const ByteRange first = ByteRange{0, kPartBytes}.intersection(all);
  const auto pages = pages_in(file, first);
  if (!pages || size == 0) {
    return std::nullopt;
  }
  if (!pages->first_ready) {
    return 0;
  }
  if (pages->all > pages->ready) {
    return narrow(file, first);
  }
  const std::uint64_t others = (size - 1) / kPartBytes;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(others, kMostOthers); ++i) {
    const std::uint64_t part = 1 + next_.fetch_add(1, std::memory_order_relaxed) % others;
    const ByteRange range = ByteRange{part * kPartBytes, kPartBytes}.intersection(all);
    if (has_unread(file, range)) {
      return narrow(file, range);
    }
  }
  return std::nullopt;
}

}  // namespace larder::cachefiles
