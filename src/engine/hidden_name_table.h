// HiddenNameTable: the hidden names of all mounts, in the keeper's memory, so that what an engine
// or a mount left behind at a server is removed by the next.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/hidden_name_store.h"

namespace larder::engine {

// Threads: any. Life: the engine's; outlives its stores.
class HiddenNameTable {
 public:
  // Takes over what is in it: all of that is of mounts that are over.
  explicit HiddenNameTable(handover::Table<handover::HiddenNameRecord> records);

  // The names of one mount of the share that is so called (netfs::Share::key). The mount is over
  // when the store is destroyed.
  [[nodiscard]] std::unique_ptr<netfs::HiddenNameStore> store_for(std::uint32_t mount_id,
                                                                  std::string share)
      EXCLUDES(mutex_);

 private:
  class Store;
  using Record = handover::HiddenNameRecord;

  void put(std::uint32_t mount_id, std::string_view share, const netfs::LeftName& name)
      EXCLUDES(mutex_);
  void remove(std::uint32_t mount_id, const netfs::FileHandle& directory, std::string_view name)
      EXCLUDES(mutex_);
  [[nodiscard]] std::vector<netfs::LeftName> adopt(std::uint32_t mount_id, std::string_view share)
      EXCLUDES(mutex_);
  void end_mount(std::uint32_t mount_id) EXCLUDES(mutex_);

  const handover::Table<Record> records_;
  Mutex mutex_{LockRank::kStats};
  std::set<std::uint32_t> used_ GUARDED_BY(mutex_);     // slots
  std::vector<std::uint32_t> free_ GUARDED_BY(mutex_);  // below next_unused_
  std::set<std::uint32_t> mounts_ GUARDED_BY(mutex_);   // that are not over
  std::uint32_t next_unused_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::engine
