// BackingTable: the files that are registered for passthrough, recorded in the keeper's memory.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "handover/records.h"
#include "handover/table.h"

namespace larder::engine {

// The kernel keeps its ids when an engine dies: what they are for must be known to the next one.
// Threads: any. Life: the engine's; outlives every mount.
class BackingTable {
 public:
  explicit BackingTable(handover::Table<handover::BackingRecord> records);

  // The record's mount and id name it. A full table keeps no record of it: more files than that
  // cannot be open.
  void put(const handover::BackingRecord& record) EXCLUDES(mutex_);
  void remove(std::uint32_t mount_id, std::int32_t backing_id) EXCLUDES(mutex_);

 private:
  using Name = std::pair<std::uint32_t, std::int32_t>;  // mount, backing id

  const handover::Table<handover::BackingRecord> records_;
  Mutex mutex_{LockRank::kStats};
  std::map<Name, std::uint32_t> slots_ GUARDED_BY(mutex_);
  std::vector<std::uint32_t> free_ GUARDED_BY(mutex_);  // below next_unused_
  std::uint32_t next_unused_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::engine
