// WriteTable: the bytes of all mounts' writes that were answered before the server had them on its
// disk, in the keeper's memory (handover::WriteRecord).
//
// A write's room is a run of whole pages. One that may still grow has free pages behind it to
// itself, as many as it hopes to need, until somebody else finds no room. A page that becomes free
// keeps its memory for the next that is written: one without costs as much again as filling it.
// What nobody needed for a while is given back to the system.
//
// A mount may have three times as many pages as are free: alone it gets three quarters of them, and
// however many mounts wait for silent servers, there is room for one that has little.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "engine/free_pages.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/write_store.h"

namespace larder::engine {

// What an engine had not brought to safety when it died.
struct LeftWrites {
  std::uint64_t bytes = 0;
  std::uint64_t files = 0;
};

// Threads: any. Life: the engine's; outlives its stores.
class WriteTable {
 public:
  using Records = handover::Table<handover::WriteRecord>;
  using Pages = handover::Table<handover::WritePage>;

  // So many free pages may have memory, and half as many as are in use; else it goes back at once.
  static constexpr std::uint32_t kMostKeptPages = (64U << 20U) / handover::WritePage::kBytes;
  // What is more than this goes back when nobody needed it for kKeepingTime.
  static constexpr std::uint32_t kKeptPages = (4U << 20U) / handover::WritePage::kBytes;
  static constexpr Duration kKeepingTime = std::chrono::seconds(10);

  // Empties it: what is in it is of mounts that ended with their engine.
  WriteTable(Records records, Pages pages, Executor& executor);
  ~WriteTable();
  WriteTable(const WriteTable&) = delete;
  WriteTable& operator=(const WriteTable&) = delete;

  [[nodiscard]] const LeftWrites& left() const { return left_; }

  [[nodiscard]] std::unique_ptr<netfs::WriteStore> store_for(std::uint32_t mount_id);

  // Pages with bytes in them; free ones that have memory. For tests.
  [[nodiscard]] std::uint32_t used_pages() const EXCLUDES(mutex_);
  [[nodiscard]] std::uint32_t kept_pages() const EXCLUDES(mutex_);

 private:
  class Store;
  class Space;
  using Record = handover::WriteRecord;

  [[nodiscard]] LeftWrites take_left() const;
  [[nodiscard]] std::unique_ptr<netfs::WriteSpace> reserve(std::uint32_t mount_id,
                                                           const netfs::StoredWrite& what,
                                                           std::size_t most) EXCLUDES(mutex_);
  // Has pages for so many bytes of the space, or as many as it gets: for how many bytes there are.
  [[nodiscard]] std::size_t grow(Space& space, std::size_t bytes) EXCLUDES(mutex_);
  void close(Space& space) EXCLUDES(mutex_);
  void free(Space& space) EXCLUDES(mutex_);

  [[nodiscard]] std::uint32_t may_take(std::uint32_t mount_id) const REQUIRES(mutex_);
  void use(Space& space, std::uint32_t pages) REQUIRES(mutex_);
  void end_growth(Space& space) REQUIRES(mutex_);
  // Free pages, of which so many have memory.
  [[nodiscard]] std::vector<PageRun> take_kept(std::uint32_t count) REQUIRES(mutex_);
  void release(const std::vector<PageRun>& runs) EXCLUDES(mutex_);
  void release_later(Duration delay);
  void release_unneeded() EXCLUDES(mutex_);

  const Records records_;
  const Pages pages_;
  const LeftWrites left_;
  Executor& executor_;
  const std::shared_ptr<Gate> timers_ =
      std::make_shared<Gate>();  // what runs later holds it weakly

  mutable Mutex mutex_{LockRank::kStats};
  FreePages free_ GUARDED_BY(mutex_);
  std::set<Space*> growing_ GUARDED_BY(mutex_);
  std::unordered_map<std::uint32_t, std::uint32_t> used_by_ GUARDED_BY(mutex_);  // pages, by mount
  std::uint32_t used_ GUARDED_BY(mutex_) = 0;                                    // pages of all
  std::vector<bool> has_memory_ GUARDED_BY(mutex_);                              // by page
  std::uint32_t kept_ GUARDED_BY(mutex_) = 0;  // that have memory and are not in use
  std::uint32_t unneeded_ GUARDED_BY(mutex_) =
      0;  // the least that kept_ was since the timer is set
  bool timer_set_ GUARDED_BY(mutex_) = false;
  std::uint64_t last_order_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::engine
