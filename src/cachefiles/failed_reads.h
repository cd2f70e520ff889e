// FailedReads: notices that the kernel could not read a backing file for somebody who reads it past
// us.
//
// Nobody tells us of such an error. But the kernel keeps a page that it wanted to read, and could
// not, in its memory, without bytes. So where it has more pages of a file than pages with bytes it
// is reading just now, or failed to: who reads that place learns which
// (docs/decisions/0015-errors-the-kernel-met.md).
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "base/byte_range.h"
#include "base/clock.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// Threads: any. Life: its object's. Does not wait for the disk.
class FailedReads {
 public:
  // A place in `file`, which is `size` bytes long, that is to be read before the file is handed
  // out: the kernel may have failed to read it, or nobody has yet read the file's begin, which most
  // who open a file do. nullopt: there is none, or it is not time to look. At most a hundredth of
  // the time goes into looking, but for the first millisecond, and no look counts for more than
  // three; of a large file it sees a part, and the next time what follows.
  [[nodiscard]] std::optional<std::uint64_t> find(os::File& file, std::uint64_t size,
                                                  const Clock& clock);

 private:
  [[nodiscard]] bool is_time(MonotonicTime now) const;
  void spend(MonotonicTime since, MonotonicTime until);
  [[nodiscard]] std::optional<std::uint64_t> look(os::File& file, std::uint64_t size);

  // When all that looking has cost is a hundredth of the time; ns of the clock.
  std::atomic<std::int64_t> paid_until_{0};
  std::atomic<std::uint64_t> next_{0};  // of the parts after the first one
};

}  // namespace larder::cachefiles
