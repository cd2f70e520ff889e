#include "cachefiles/touch_watch.h"

#include <cstdint>

#include "base/mutex.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

void TouchWatch::begin(os::FileTime modified) {
  const MutexLock lock(mutex_);
  known_ = modified;
}

void TouchWatch::forget() {
  const MutexLock lock(mutex_);
  ++life_;
  writes_ = 0;
  known_.reset();
}

Result<std::uint64_t> TouchWatch::begin_write(os::File& file) {
  const MutexLock lock(mutex_);
  if (writes_ == 0 && known_) {  // else the look would be for nothing
    compare(TRY(file.stat()).modified);
    known_.reset();
  }
  ++writes_;
  return life_;
}

Result<> TouchWatch::end_write(os::File& file, std::uint64_t life) {
  const MutexLock lock(mutex_);
  if (life == life_ && --writes_ == 0) {
    known_ = TRY(file.stat()).modified;
  }
  return {};
}

Result<os::FileStat> TouchWatch::look(os::File& file) {
  const MutexLock lock(mutex_);
  const os::FileStat stat = TRY(file.stat());
  compare(stat.modified);
  return stat;
}

void TouchWatch::compare(os::FileTime modified) {
  if (known_ && *known_ != modified) {
    on_touched_();
    known_ = modified;
  }
}

}  // namespace larder::cachefiles
