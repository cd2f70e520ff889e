// Object: changed in place, for who has its backing file open and reads it past us.
//
// A backing file that was changed is nobody's version any more. The dirty mark in its label says
// so, on the disk before the first byte changes: whatever a crash does then to the name that was
// taken away, or to the new bytes, what the name leads to is not used. Until then the file is as it
// was.
#include <algorithm>
#include <cstdint>
#include <memory>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "cachefiles/content_map.h"
#include "cachefiles/core.h"
#include "cachefiles/in_use.h"
#include "cachefiles/label.h"
#include "cachefiles/map_log.h"
#include "cachefiles/object.h"
#include "cachefiles/object_log.h"
#include "cachefiles/volume.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

std::uint64_t rounded_up(std::uint64_t bytes) {
  return ByteRange{0, bytes}.rounded_out(kUnitBytes).length;
}

// Blocks that writing `range` may take from the disk.
std::uint64_t room_for(ByteRange range, const os::FileStat& before) {
  const ByteRange blocks = range.rounded_out(kUnitBytes);
  const std::uint64_t end = rounded_up(before.size);
  if (before.allocated < end) {
    return blocks.length;  // some are holes
  }
  return blocks.end() - std::max(blocks.offset, std::min(end, blocks.end()));
}

}  // namespace

Result<> Object::overwrite(std::uint64_t offset, Bytes from) {
  const Result<> done = overwrite_file(offset, from);
  return done ? done : Result<>(fail(core_.note(done.error())));
}

Result<> Object::resize(std::uint64_t size) {
  const Result<> done = resize_file(size);
  return done ? done : Result<>(fail(core_.note(done.error())));
}

Result<bool> Object::is_open_elsewhere() {
  const std::shared_ptr<os::File> file = TRY(file_.get());
  return file->is_open_elsewhere();
}

Result<> Object::overwrite_file(std::uint64_t offset, Bytes from) {
  const std::shared_ptr<os::File> file = TRY(file_to_overwrite());
  const os::FileStat before = TRY(file->stat());
  const std::uint64_t room = room_for({offset, from.size()}, before);
  if (room > 0) {
    TRY(charge(room));
  }
  const Result<> put = file->write_at(offset, from);
  if (!put && offset + from.size() > before.size) {
    (void)file->set_size(before.size);  // nobody was told that it is longer
  }
  charge_what_is_there(*file);
  return put;
}

Result<> Object::resize_file(std::uint64_t size) {
  const std::shared_ptr<os::File> file = TRY(file_to_overwrite());
  const Result<> put = file->set_size(size);
  charge_what_is_there(*file);
  return put;
}

Result<std::shared_ptr<os::File>> Object::file_to_overwrite() {
  if (!core_.usable()) {
    return fail(Errc::kCacheDead, "the cache was given up");
  }
  if (small_) {
    return fail(Errc::kNotSupported, "a small object is not changed in place");
  }
  std::shared_ptr<os::File> file = TRY(file_.get());
  superseded_ = true;
  const InUse::Claim claim = volume_.in_use().claim(name_);
  {
    const MutexLock lock(mutex_);
    if (dirty_) {
      return file;
    }
  }
  if (give_up_name()) {
    TRY(volume_.remove(index_, name_));
  }
  {
    // Whoever reads just now does not get what will be there in a moment.
    const MutexLock lock(mutex_);
    overwritten_ = true;
    map_.clear();
    ++drops_;
    complete_ = false;
    sealed_ = false;
  }
  core_.write_back.forget(log_.nonce());
  TRY(mark_dirty(*file));
  const MutexLock lock(mutex_);
  dirty_ = true;
  return file;
}

Result<> Object::mark_dirty(os::File& file) {
  Label label;
  {
    const MutexLock lock(mutex_);
    label.size = description_.size;
    label.coherency = description_.coherency;
    label.stamp = label_stamp_;
    label.racy = racy_;
    label.dirty = true;
  }
  TRY(file.set_xattr(kLabelName, encode_label(label)));
  return file.sync();
}

void Object::charge_what_is_there(os::File& file) {
  const Result<os::FileStat> stat = file.stat();
  if (!stat) {
    return;
  }
  const MutexLock lock(mutex_);
  core_.accounts.change(
      nullptr, static_cast<std::int64_t>(stat->allocated) - static_cast<std::int64_t>(charged_), 0);
  charged_ = stat->allocated;
}

}  // namespace larder::cachefiles
