// HandleTable: the files and directories that are open, of all mounts, by the kernel's fh.
//
// An fh is a slot of the keeper's table and a generation: it names one open for as long as that
// lasts, also across the life of an engine; what was never given out, or was closed, names nothing.
// The record is in shared memory; what only this engine needs is beside it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fuse/node_open.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/directory_stream.h"
#include "netfs/share.h"

namespace larder::fuse {

// An open file or directory. Never changed once made.
struct OpenHandle {
  std::uint32_t mount_id = 0;
  std::uint64_t nodeid = 0;
  std::uint32_t open_flags = 0;
  OpenMode mode = OpenMode::kClosed;                  // of a directory: closed
  netfs::OpenFile open;                               // of a directory: the credential alone
  std::shared_ptr<netfs::DirectoryStream> directory;  // null: a file
};

using HandleRef = std::shared_ptr<const OpenHandle>;

// Threads: any; opens that are side by side in the table share no lock. Life: the engine's;
// outlives every mount.
class HandleTable {
 public:
  explicit HandleTable(handover::Table<handover::HandleRecord> records);
  HandleTable(const HandleTable&) = delete;
  HandleTable& operator=(const HandleTable&) = delete;
  ~HandleTable() = default;

  // The fh of a new open. kNoSpace, ENFILE: the table is full.
  [[nodiscard]] Result<std::uint64_t> add(OpenHandle handle);
  // Null: this mount has no such open of this node (any more).
  [[nodiscard]] HandleRef find(std::uint32_t mount_id, std::uint64_t nodeid,
                               std::uint64_t fh) const;
  // Frees its slot and returns what was there; null as above.
  HandleRef remove(std::uint32_t mount_id, std::uint64_t nodeid, std::uint64_t fh);
  // The mount is over: all its opens go.
  void drop_mount(std::uint32_t mount_id);

  [[nodiscard]] std::size_t size() const;

 private:
  // The table's slots in as many runs, each with a lock of its own.
  static constexpr std::uint32_t kShards = 16;
  static constexpr unsigned kGenerationShift = 32;
  // A shard that comes to rest gives its memory back if it had grown to so many.
  static constexpr std::size_t kSlotsWorthReleasing = 1024;

  struct Entry {
    HandleRef handle;  // null: the slot is free
    std::uint32_t generation = 0;
  };

  struct Shard {
    mutable Mutex mutex{LockRank::kNode};
    std::vector<Entry> entries GUARDED_BY(mutex);  // grows to the most that were open at a time
    std::vector<std::uint32_t> free GUARDED_BY(mutex);  // indexes of entries
  };

  // Where an fh points, whether or not anything is there.
  struct Place {
    std::uint32_t shard;
    std::uint32_t index;
    std::uint32_t generation;
  };

  [[nodiscard]] std::optional<Place> place_of(std::uint64_t fh) const;
  [[nodiscard]] std::optional<std::uint64_t> add_to(std::uint32_t shard, const HandleRef& handle);
  [[nodiscard]] std::uint32_t slot_of(std::uint32_t shard, std::uint32_t index) const;
  [[nodiscard]] static HandleRef handle_at(const Shard& shard, const Place& place,
                                           std::uint32_t mount_id, std::uint64_t nodeid)
      REQUIRES(shard.mutex);
  void free_entry(Shard& shard, std::uint32_t shard_index, std::uint32_t index)
      REQUIRES(shard.mutex);

  const std::uint32_t shard_slots_;
  handover::Table<handover::HandleRecord> records_;  // each guarded by its shard's lock
  std::array<Shard, kShards> shards_;
  std::atomic<std::uint32_t> next_shard_{0};
  std::atomic<std::uint32_t> last_generation_{0};
};

}  // namespace larder::fuse
