#include "fuse/handle_table.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"

namespace larder::fuse {

namespace {

handover::HandleRecord record_of(const OpenHandle& handle, std::uint32_t generation) {
  handover::HandleRecord record{};
  record.nodeid = handle.nodeid;
  record.mount_id = handle.mount_id;
  record.generation = generation;
  record.open_flags = handle.open_flags;
  record.open_mode = static_cast<std::uint8_t>(handle.mode);
  if (handle.open.version != nullptr) {
    record.size = handle.open.version->size();
    record.coherency = netfs::coherency_of(handle.open.version->attributes);
  }
  if (handle.open.credential != nullptr) {
    const netfs::Credential& opener = *handle.open.credential;
    record.uid = opener.uid;
    record.gid = opener.gid;
    const std::size_t kept = std::min(opener.groups.size(), record.groups.size());
    record.group_count = static_cast<std::uint16_t>(kept);
    std::copy_n(opener.groups.begin(), kept, record.groups.begin());
  }
  return record;
}

}  // namespace

HandleTable::HandleTable(handover::Table<handover::HandleRecord> records)
    : shard_slots_(records.capacity() / kShards), records_(std::move(records)) {}

std::uint32_t HandleTable::slot_of(std::uint32_t shard, std::uint32_t index) const {
  return shard * shard_slots_ + index;
}

Result<std::uint64_t> HandleTable::add(OpenHandle handle) {
  const auto shared = std::make_shared<const OpenHandle>(std::move(handle));
  const std::uint32_t first = next_shard_.fetch_add(1, std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < kShards; ++i) {
    if (const auto fh = add_to((first + i) % kShards, shared)) {
      return *fh;
    }
  }
  return fail(Errc::kNoSpace, ENFILE, "the table of open files is full");
}

std::optional<std::uint64_t> HandleTable::add_to(std::uint32_t shard_index,
                                                 const HandleRef& handle) {
  Shard& shard = shards_.at(shard_index);
  const MutexLock lock(shard.mutex);
  std::uint32_t index = 0;
  if (!shard.free.empty()) {
    index = shard.free.back();
    shard.free.pop_back();
  } else if (shard.entries.size() < shard_slots_) {
    index = static_cast<std::uint32_t>(shard.entries.size());
    shard.entries.emplace_back();
  } else {
    return std::nullopt;
  }
  const std::uint32_t generation = last_generation_.fetch_add(1, std::memory_order_relaxed) + 1;
  shard.entries[index] = {handle, generation};
  const std::uint32_t slot = slot_of(shard_index, index);
  records_[slot] = record_of(*handle, generation);
  return (std::uint64_t{generation} << kGenerationShift) | slot;
}

std::optional<HandleTable::Place> HandleTable::place_of(std::uint64_t fh) const {
  const auto slot = static_cast<std::uint32_t>(fh);
  if (slot >= shard_slots_ * kShards) {
    return std::nullopt;
  }
  return Place{slot / shard_slots_, slot % shard_slots_,
               static_cast<std::uint32_t>(fh >> kGenerationShift)};
}

HandleRef HandleTable::find(std::uint32_t mount_id, std::uint64_t nodeid, std::uint64_t fh) const {
  const std::optional<Place> place = place_of(fh);
  if (!place) {
    return nullptr;
  }
  const Shard& shard = shards_.at(place->shard);
  const MutexLock lock(shard.mutex);
  return handle_at(shard, *place, mount_id, nodeid);
}

HandleRef HandleTable::remove(std::uint32_t mount_id, std::uint64_t nodeid, std::uint64_t fh) {
  const std::optional<Place> place = place_of(fh);
  if (!place) {
    return nullptr;
  }
  Shard& shard = shards_.at(place->shard);
  const MutexLock lock(shard.mutex);
  HandleRef removed = handle_at(shard, *place, mount_id, nodeid);
  if (removed != nullptr) {
    free_entry(shard, place->shard, place->index);
  }
  return removed;
}

HandleRef HandleTable::handle_at(const Shard& shard, const Place& place, std::uint32_t mount_id,
                                 std::uint64_t nodeid) {
  if (place.index >= shard.entries.size()) {
    return nullptr;
  }
  const Entry& entry = shard.entries[place.index];
  const bool same = entry.handle != nullptr && entry.generation == place.generation &&
                    entry.handle->mount_id == mount_id && entry.handle->nodeid == nodeid;
  return same ? entry.handle : nullptr;
}

void HandleTable::free_entry(Shard& shard, std::uint32_t shard_index, std::uint32_t index) {
  shard.entries[index] = {};
  records_[slot_of(shard_index, index)] = {};
  shard.free.push_back(index);
  const std::size_t used = shard.entries.size();
  if (shard.free.size() == used && used >= kSlotsWorthReleasing) {
    shard.entries = {};
    shard.free = {};
    records_.release(slot_of(shard_index, 0), static_cast<std::uint32_t>(used));
  }
}

void HandleTable::drop_mount(std::uint32_t mount_id) {
  std::vector<HandleRef> gone;  // destroyed without a lock
  for (std::uint32_t i = 0; i < kShards; ++i) {
    Shard& shard = shards_.at(i);
    const MutexLock lock(shard.mutex);
    // The last of them may empty the shard.
    for (std::uint32_t index = 0; index < shard.entries.size(); ++index) {
      const HandleRef& handle = shard.entries[index].handle;
      if (handle != nullptr && handle->mount_id == mount_id) {
        gone.push_back(handle);
        free_entry(shard, i, index);
      }
    }
  }
}

std::size_t HandleTable::size() const {
  std::size_t size = 0;
  for (const Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    size += shard.entries.size() - shard.free.size();
  }
  return size;
}

}  // namespace larder::fuse
