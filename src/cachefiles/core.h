// Core: what all parts of one cache share: its directories, its limits, its epochs, its health.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/counter.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/accounts.h"
#include "cachefiles/caretaker.h"
#include "cachefiles/epochs.h"
#include "cachefiles/kept_directories.h"
#include "cachefiles/open_files.h"
#include "cachefiles/pressure.h"
#include "cachefiles/recent_count.h"
#include "cachefiles/refusals.h"
#include "cachefiles/space.h"
#include "cachefiles/write_back.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

struct CoreCounters {
  Counter corrupt_ranges;   // checksums that did not fit
  Counter damaged_objects;  // label, length, map log or type that made no sense
  Counter undurable;        // dropped because a crash may have taken them
  Counter culled_objects;
  Counter culled_bytes;
  RecentCount culled_lately;
};

// Since 1970.
[[nodiscard]] inline std::int64_t nanoseconds_of(os::FileTime time) {
  return time.seconds * 1'000'000'000 + time.nanoseconds;
}

// Life: owned by the cache, outlives its volumes and objects. Threads: any.
struct Core {
  Core(os::Filesystem& the_filesystem, const Clock& the_clock, const Limits& limits,
       std::uint32_t generation, std::vector<PastGenerations> past, std::size_t most_open_files)
      : filesystem(the_filesystem),
        clock(the_clock),
        space(limits),
        accounts(space),
        epochs(generation, std::move(past)),
        open_files(most_open_files),
        write_back(epochs) {}

  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  ~Core() = default;

  os::Filesystem& filesystem;
  const Clock& clock;
  std::unique_ptr<os::Directory> root, cache, maps, meta;

  Space space;
  Accounts accounts;
  Epochs epochs;
  OpenFiles open_files;
  KeptDirectories kept_directories;
  WriteBack write_back;
  CoreCounters counters;
  Caretaker caretaker;
  Pressure pressure;
  Refusals refusals;

  // Seconds after which a stamp of last use is old enough to be written again.
  std::atomic<double> stamp_seconds{60};

  [[nodiscard]] bool usable() const { return !dead_.load(std::memory_order_acquire); }

  // Looks at an error of the disk. An I/O error ends the cache's use, with a sentence for the
  // status; a full disk starts culling; where something is missing, maintenance looks whether all
  // of the cache is. Returns it, for `return fail(core.note(error))`.
  Error note(Error error) EXCLUDES(mutex_);
  [[nodiscard]] std::string trouble() const EXCLUDES(mutex_);
  // A sentence about something that stopped only part of the work. It is taken back by the second
  // call of forget_partial_trouble() after it was last set.
  void set_partial_trouble(std::string sentence) EXCLUDES(mutex_);
  void forget_partial_trouble() EXCLUDES(mutex_);

  void set_wake(std::move_only_function<void()> wake) EXCLUDES(mutex_);
  // Has no effect in maintenance itself, which says when it wants to run again: else a disk that
  // refuses what maintenance tries would keep it running without a pause.
  void wake() EXCLUDES(mutex_);

  // Held by the thread that maintains.
  class Maintaining {
   public:
    explicit Maintaining(const Core& core);
    Maintaining(const Maintaining&) = delete;
    Maintaining& operator=(const Maintaining&) = delete;
    ~Maintaining();
  };

  // The time by which the filesystem stamps its files.
  void set_file_time(os::FileTime now) EXCLUDES(mutex_);
  [[nodiscard]] os::FileTime file_time() const EXCLUDES(mutex_);

  // A fresh random number.
  [[nodiscard]] Result<std::uint64_t> random();

  // Takes an unexpected name out of the way: a directory moves to the graveyard, all else is
  // unlinked. What it was; nullopt: nothing was there.
  Result<std::optional<os::FileStat>> bury(os::Directory& directory, std::string_view name);
  // The same; an error says nothing about the cache.
  Result<std::optional<os::FileStat>> take_away(os::Directory& directory, std::string_view name);
  // It is opened anew each time: whoever finds it empty may take it away, and then it is made
  // again.
  [[nodiscard]] Result<std::unique_ptr<os::Directory>> open_graveyard();
  // A name in the graveyard that nothing has.
  [[nodiscard]] Result<std::string> grave_name();

  // Names given in the graveyard, ever.
  [[nodiscard]] std::uint64_t buried() const { return buried_; }

  // Something was not kept for lack of room.
  void note_refused() EXCLUDES(mutex_);
  // Nothing new is kept: the filesystem is too full, or the cache is, and nobody makes room.
  [[nodiscard]] bool stopped() const;
  // What is known of the reason, and what to do; "" while it is not so.
  [[nodiscard]] std::string why_stopped() const;

  // An object is not in use any more: while room is short it may be what the caretaker waits for.
  void note_released(std::uint64_t bytes) EXCLUDES(mutex_);

 private:
  std::atomic<bool> dead_{false};
  std::atomic<bool> missing_{false};  // since forget_partial_trouble()
  std::atomic<std::uint64_t> buried_{0};
  mutable Mutex mutex_{LockRank::kStats};
  std::string trouble_ GUARDED_BY(mutex_);
  std::string partial_trouble_ GUARDED_BY(mutex_);
  bool partial_trouble_lasts_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<std::move_only_function<void()>> wake_ GUARDED_BY(mutex_);
  os::FileTime file_time_ GUARDED_BY(mutex_);
  MonotonicTime file_time_taken_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
