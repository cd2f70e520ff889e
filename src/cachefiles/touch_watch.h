// TouchWatch: notices that somebody else wrote to a backing file.
//
// Between our own writes a backing file's time of change stays as it is; another one means that
// its bytes may not be those of their checksums any more. What is changed while a write of ours is
// under way is not noticed, nor what sets the time back.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// Threads: any. Each call but forget() may wait for the disk.
class TouchWatch {
 public:
  // `on_touched` runs with the watch's lock held: nobody is told that all is well before it ends.
  explicit TouchWatch(std::function<void()> on_touched) : on_touched_(std::move(on_touched)) {}

  // The file is as `modified` says; what is in it is to be checked by whoever reads it.
  void begin(os::FileTime modified) EXCLUDES(mutex_);
  // From now on it is another file, of which nothing is known before a write of ours.
  void forget() EXCLUDES(mutex_);

  // Around each write of ours: begin_write() returns what end_write() is to be given.
  [[nodiscard]] Result<std::uint64_t> begin_write(os::File& file) EXCLUDES(mutex_);
  [[nodiscard]] Result<> end_write(os::File& file, std::uint64_t life) EXCLUDES(mutex_);

  // Looks whether it was touched. Called after bytes were read, it vouches for them.
  [[nodiscard]] Result<os::FileStat> look(os::File& file) EXCLUDES(mutex_);

 private:
  void compare(os::FileTime modified) REQUIRES(mutex_);

  const std::function<void()> on_touched_;
  Mutex mutex_{LockRank::kBackingFile};
  std::uint64_t life_ GUARDED_BY(mutex_) = 0;  // files before this one
  unsigned writes_ GUARDED_BY(mutex_) = 0;     // under way
  std::optional<os::FileTime> known_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
