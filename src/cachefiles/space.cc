#include "cachefiles/space.h"

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kMarginPart = 64;
constexpr std::uint64_t kMostMargin = std::uint64_t{16} << 20U;
// Of what is used, and not more: how much is wanted the disk does not say, so it is asked again.
constexpr unsigned kPercentForTheDisk = 3;
constexpr std::uint64_t kMostForTheDisk = std::uint64_t{1} << 30U;

std::uint64_t share(std::uint64_t whole, unsigned percent) {
  return whole / 100 * percent + whole % 100 * percent / 100;
}

std::uint64_t plus(std::uint64_t value, std::int64_t change) {
  const auto sum = static_cast<std::int64_t>(value) + change;
  return sum > 0 ? static_cast<std::uint64_t>(sum) : 0;
}

std::uint64_t lacking(std::uint64_t wanted, std::uint64_t there) {
  return wanted > there ? wanted - there : 0;
}

// Free bytes of the filesystem, less what was taken since it was asked.
std::uint64_t free_bytes(const os::FilesystemSpace& space, std::int64_t taken) {
  return plus(space.available_blocks * space.block_size, -taken);
}

}  // namespace

bool Space::stopped_locked() const {
  const std::uint64_t whole = filesystem_.blocks * filesystem_.block_size;
  return disk_full_ || free_bytes(filesystem_, since_statfs_) < share(whole, limits_.blocks.stop) ||
         filesystem_.free_files < share(filesystem_.files, limits_.files.stop);
}

bool Space::wanted_locked() const {
  const std::uint64_t whole = filesystem_.blocks * filesystem_.block_size;
  return disk_full_ || used_ > for_the_disk_.down_to ||
         lacking(limits_.size_bytes, used_) < spare_locked(limits_.blocks.cull) ||
         free_bytes(filesystem_, since_statfs_) < share(whole, limits_.blocks.cull) ||
         filesystem_.free_files < share(filesystem_.files, limits_.files.cull);
}

// What is only known afterwards, as the blocks of a directory that has grown, finds room in the
// last part of the limit.
std::uint64_t Space::reservable_locked() const {
  const std::uint64_t margin = std::min(limits_.size_bytes / kMarginPart, kMostMargin);
  return limits_.size_bytes - margin;
}

// Where few per cent are to be free, or the cache is small, it may be full long before they are
// not.
std::uint64_t Space::spare_locked(unsigned percent) const {
  const std::uint64_t whole = limits_.size_bytes;
  const std::uint64_t for_refused = refused_ == 0 ? 0 : whole - reservable_locked() + refused_;
  return std::max(share(whole, percent), for_refused);
}

Result<> Space::reserve(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  const std::uint64_t reservable = reservable_locked();
  if (used_ + bytes > reservable && bytes <= reservable) {
    refused_ = std::max(refused_, bytes);
  }
  if (used_ + bytes > std::min(reservable, ceiling_) || stopped_locked()) {
    return fail(Errc::kNoSpace, "the cache is full");
  }
  used_ += bytes;
  since_statfs_ += static_cast<std::int64_t>(bytes);
  return {};
}

void Space::adjust(std::int64_t bytes, std::int64_t objects) {
  const MutexLock lock(mutex_);
  set_used_locked(plus(used_, bytes));
  since_statfs_ += bytes;
  objects_ = plus(objects_, objects);
}

void Space::set_used_locked(std::uint64_t bytes) {
  used_ = bytes;
  if (used_ <= for_the_disk_.down_to) {
    for_the_disk_ = {};
  }
}

void Space::set_totals(std::uint64_t bytes, std::uint64_t objects, bool exact) {
  const MutexLock lock(mutex_);
  set_used_locked(bytes);
  objects_ = objects;
  exact_ = exact;
}

void Space::note_filesystem(const os::FilesystemSpace& found) {
  const MutexLock lock(mutex_);
  filesystem_ = found;
  since_statfs_ = 0;
  if (found.available_blocks * found.block_size >
      share(found.blocks * found.block_size, limits_.blocks.stop)) {
    disk_full_ = false;
  }
}

void Space::note_disk_full() {
  const MutexLock lock(mutex_);
  disk_full_ = true;
  for_the_disk_.written = 0;
  if (for_the_disk_.down_to == UINT64_MAX && objects_ > 0) {
    for_the_disk_.bytes = std::min(share(used_, kPercentForTheDisk), kMostForTheDisk);
    for_the_disk_.down_to = used_ - for_the_disk_.bytes;
  }
}

// What is small may find room where nothing else does: that alone says nothing.
void Space::note_written(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  for_the_disk_.written += bytes;
  if (for_the_disk_.written >= for_the_disk_.bytes) {
    for_the_disk_ = {};
  }
}

void Space::set_ceiling(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  ceiling_ = bytes;
  near_ = bytes > used_ ? used_ + (bytes - used_) / 2 : 0;
}

bool Space::near_ceiling_locked() const {
  return ceiling_ < limits_.size_bytes && used_ > near_;
}

bool Space::near_ceiling() const {
  const MutexLock lock(mutex_);
  return near_ceiling_locked();
}

bool Space::wants_care() const {
  const MutexLock lock(mutex_);
  return near_ceiling_locked() || (!culling_ && wanted_locked());
}

bool Space::wants_culling() const {
  const MutexLock lock(mutex_);
  return !culling_ && wanted_locked();
}

void Space::set_limits(const Limits& limits) {
  const MutexLock lock(mutex_);
  limits_ = limits;
  refused_ = 0;
}

std::uint64_t Space::limit_bytes() const {
  const MutexLock lock(mutex_);
  return limits_.size_bytes;
}

ToFree Space::to_free() {
  const MutexLock lock(mutex_);
  return to_free_locked();
}

Room Space::room_locked() const {
  const auto thresholds = [](std::uint64_t whole, const Percentages& percent) {
    return Thresholds{share(whole, percent.run), share(whole, percent.cull),
                      share(whole, percent.stop)};
  };
  return {.blocks = thresholds(filesystem_.blocks * filesystem_.block_size, limits_.blocks),
          .files = thresholds(filesystem_.files, limits_.files),
          .free_bytes = free_bytes(filesystem_, since_statfs_),
          .free_files = filesystem_.free_files};
}

Room Space::room() const {
  const MutexLock lock(mutex_);
  return room_locked();
}

SpaceState Space::state() {
  const MutexLock lock(mutex_);
  SpaceState state;
  state.to_free = to_free_locked();
  state.limits = limits_;
  state.room = room_locked();
  state.block_size = filesystem_.block_size;
  state.used_bytes = used_;
  state.objects = objects_;
  state.culling = culling_;
  state.stopped = stopped_locked();
  return state;
}

ToFree Space::to_free_locked() {
  if (!exact_) {
    return {};  // an upper bound is no reason to throw anything away
  }
  if (wanted_locked()) {
    culling_ = true;
  }
  if (!culling_) {
    return {};
  }
  const std::uint64_t whole = filesystem_.blocks * filesystem_.block_size;
  ToFree wanted;
  wanted.bytes =
      std::max({lacking(used_, limits_.size_bytes - spare_locked(limits_.blocks.run)),
                lacking(share(whole, limits_.blocks.run), free_bytes(filesystem_, since_statfs_)),
                lacking(used_, for_the_disk_.down_to)});
  wanted.files = lacking(share(filesystem_.files, limits_.files.run), filesystem_.free_files);
  if (wanted.bytes == 0 && wanted.files == 0) {
    culling_ = false;
    refused_ = 0;
  }
  return wanted;
}

std::uint64_t Space::used_bytes() const {
  const MutexLock lock(mutex_);
  return used_;
}

std::uint64_t Space::objects() const {
  const MutexLock lock(mutex_);
  return objects_;
}

bool Space::exact() const {
  const MutexLock lock(mutex_);
  return exact_;
}

bool Space::culling() const {
  const MutexLock lock(mutex_);
  return culling_;
}

bool Space::stopped() const {
  const MutexLock lock(mutex_);
  return stopped_locked();
}

}  // namespace larder::cachefiles
