// Space: how much the cache may use, and how much it does.
//
// Two limits: the shares of the filesystem that must stay free (brun, bcull, bstop; frun, fcull,
// fstop for inodes), and a size in bytes which holds at every moment, whatever is being filled and
// whatever unlinked files are still open. Room is reserved before it is used. What the disk refuses
// beyond that, by a quota or as it is full of something else than blocks, is reason to cull too.
#pragma once

#include <cstdint>
#include <utility>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// Percent that must be free: above run culling stops, below cull it starts, below stop nothing new
// is kept. stop < cull < run < 100.
struct Percentages {
  unsigned run = 10;
  unsigned cull = 7;
  unsigned stop = 3;
};

struct Limits {
  std::uint64_t size_bytes = 0;
  Percentages blocks;  // brun, bcull, bstop
  Percentages files;   // frun, fcull, fstop
};

// What should be freed now; nothing when both are zero.
struct ToFree {
  std::uint64_t bytes = 0;
  std::uint64_t files = 0;
};

// What must be free: inodes, and bytes.
struct Thresholds {
  std::uint64_t run = 0, cull = 0, stop = 0;
};

// Where the filesystem stands.
struct Room {
  Thresholds blocks, files;  // bytes, inodes
  std::uint64_t free_bytes = 0, free_files = 0;
};

// All about the room of a cache at one moment.
struct SpaceState {
  Limits limits;
  Room room;
  std::uint64_t block_size = 0;
  std::uint64_t used_bytes = 0, objects = 0;
  ToFree to_free;
  bool culling = false;
  bool stopped = false;
};

// Threads: any. Life: the cache's.
class Space {
 public:
  explicit Space(const Limits& limits) : limits_(limits) {}

  // Takes `bytes` of room, or kNoSpace: then culling makes as much, if the cache can hold it at
  // all.
  [[nodiscard]] Result<> reserve(std::uint64_t bytes) EXCLUDES(mutex_);
  // Takes or gives back, whatever the limits say: what is on the disk counts.
  void adjust(std::int64_t bytes, std::int64_t objects = 0) EXCLUDES(mutex_);
  // At bind and after a round of counting.
  void set_totals(std::uint64_t bytes, std::uint64_t objects, bool exact) EXCLUDES(mutex_);

  // What statfs says now.
  void note_filesystem(const os::FilesystemSpace& found) EXCLUDES(mutex_);
  // What the disk itself said: no space, though statfs may know of some. Then culling makes a
  // little, unless the disk takes as much before.
  void note_disk_full() EXCLUDES(mutex_);
  void note_written(std::uint64_t bytes) EXCLUDES(mutex_);

  // Until the next state is written use must not pass this.
  void set_ceiling(std::uint64_t bytes) EXCLUDES(mutex_);
  // Less than half of the room below the ceiling is left, and the limit is further away.
  [[nodiscard]] bool near_ceiling() const EXCLUDES(mutex_);
  // Culling should start: to_free() does it.
  [[nodiscard]] bool wants_culling() const EXCLUDES(mutex_);
  // One of both.
  [[nodiscard]] bool wants_care() const EXCLUDES(mutex_);

  // Culling starts and stops here.
  [[nodiscard]] ToFree to_free() EXCLUDES(mutex_);
  // As to_free(), with all the rest.
  [[nodiscard]] SpaceState state() EXCLUDES(mutex_);
  // From now on; what is over them is culled.
  void set_limits(const Limits& limits) EXCLUDES(mutex_);

  [[nodiscard]] std::uint64_t used_bytes() const EXCLUDES(mutex_);
  [[nodiscard]] std::uint64_t objects() const EXCLUDES(mutex_);
  [[nodiscard]] bool exact() const EXCLUDES(mutex_);
  [[nodiscard]] bool culling() const EXCLUDES(mutex_);
  // The filesystem is too full to keep anything new.
  [[nodiscard]] bool stopped() const EXCLUDES(mutex_);

  [[nodiscard]] std::uint64_t limit_bytes() const EXCLUDES(mutex_);
  [[nodiscard]] Room room() const EXCLUDES(mutex_);

 private:
  [[nodiscard]] Room room_locked() const REQUIRES(mutex_);
  [[nodiscard]] bool stopped_locked() const REQUIRES(mutex_);
  [[nodiscard]] bool wanted_locked() const REQUIRES(mutex_);
  [[nodiscard]] bool near_ceiling_locked() const REQUIRES(mutex_);
  // Below the size, whatever the ceiling is.
  [[nodiscard]] std::uint64_t reservable_locked() const REQUIRES(mutex_);
  // Bytes below the size that are to be free: `percent` of it, or what the refused one needs.
  [[nodiscard]] std::uint64_t spare_locked(unsigned percent) const REQUIRES(mutex_);
  [[nodiscard]] ToFree to_free_locked() REQUIRES(mutex_);
  void set_used_locked(std::uint64_t bytes) REQUIRES(mutex_);

  // Use is to fall to this, as the disk refused something.
  struct ForTheDisk {
    std::uint64_t down_to = UINT64_MAX;
    std::uint64_t bytes = 0;    // that are to be freed
    std::uint64_t written = 0;  // since
  };

  mutable Mutex mutex_{LockRank::kStats};
  Limits limits_ GUARDED_BY(mutex_);
  std::uint64_t used_ GUARDED_BY(mutex_) = 0;
  std::uint64_t objects_ GUARDED_BY(mutex_) = 0;
  std::uint64_t ceiling_ GUARDED_BY(mutex_) = UINT64_MAX;
  std::uint64_t near_ GUARDED_BY(mutex_) = UINT64_MAX;
  std::uint64_t refused_ GUARDED_BY(mutex_) = 0;  // bytes that found no room, of late
  ForTheDisk for_the_disk_ GUARDED_BY(mutex_);
  std::int64_t since_statfs_ GUARDED_BY(mutex_) = 0;  // bytes taken since the filesystem was asked
  os::FilesystemSpace filesystem_ GUARDED_BY(mutex_);
  bool exact_ GUARDED_BY(mutex_) = false;
  bool culling_ GUARDED_BY(mutex_) = false;
  bool disk_full_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::cachefiles
