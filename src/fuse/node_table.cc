#include "fuse/node_table.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fuse/node_open.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/attributes.h"
#include "netfs/coherency.h"
#include "netfs/inode.h"

namespace larder::fuse {

NodeTable::NodeTable(handover::Table<handover::NodeRecord> records, std::size_t most_kept)
    : most_kept_(most_kept), records_(std::move(records)) {}

NodeTable::~NodeTable() = default;

Result<NodeId> NodeTable::reference(std::uint32_t mount_id, const netfs::InodeRef& inode) {
  const netfs::Attributes attributes = inode->attributes().attributes;
  const MutexLock lock(mutex_);
  const NodeId front = inode->front_node().load();
  if (const auto slot = find(front);
      slot && node(*slot).inode == inode && !serves_older_version(*slot)) {
    ++records_[*slot].lookup_count;
    return front;
  }
  const std::optional<std::uint32_t> slot = take_slot();
  if (!slot) {
    return fail(Errc::kNoSpace, ENOMEM, "the node table is full");
  }
  handover::NodeRecord& record = records_[*slot];
  record = {};
  record.generation = ++last_generation_;
  record.mount_id = mount_id;
  record.lookup_count = 1;
  record.fileid = attributes.fileid;
  record.fsid = attributes.fsid;
  record.type = static_cast<std::uint8_t>(attributes.type);
  const Bytes handle = inode->handle().bytes();
  record.handle_length = static_cast<std::uint8_t>(handle.size());
  std::memcpy(record.handle.data(), handle.data(), handle.size());
  node(*slot).inode = inode;
  ++size_;
  if (size_ > most_kept_ && ++made_since_offer_ >= kOffered / 2) {
    surplus_ = true;
  }
  const NodeId id = id_of(*slot, record.generation);
  inode->front_node().store(id);
  return id;
}

std::unique_ptr<NodeOpen> NodeTable::forget(NodeId id, std::uint64_t count) {
  Node gone;  // destroyed after the lock
  const MutexLock lock(mutex_);
  const std::optional<std::uint32_t> slot = find(id);
  if (!slot) {
    return nullptr;
  }
  handover::NodeRecord& record = records_[*slot];
  record.lookup_count -= std::min(record.lookup_count, count);
  if (record.lookup_count == 0) {
    gone = free_slot(*slot);
  }
  return std::move(gone.open);
}

// Slots are taken from the lowest chunks up, so a hand that goes round meets the longest known
// first, until slots are used again: then it meets all of them by turns.
std::vector<NodeId> NodeTable::take_surplus(std::uint32_t mount_id) {
  std::vector<NodeId> offered;
  if (!surplus_.load(std::memory_order_relaxed)) {
    return offered;
  }
  const MutexLock lock(mutex_);
  surplus_ = false;
  made_since_offer_ = 0;
  const auto slots = static_cast<std::uint32_t>(chunks_.size() * kChunkSlots);
  for (std::uint32_t searched = 0;
       searched < std::min(slots, kMostSlotsSearched) && offered.size() < kOffered; ++searched) {
    hand_ = hand_ + 1 < slots ? hand_ + 1 : 0;
    if (chunks_[hand_ / kChunkSlots] == nullptr) {
      hand_ += kChunkSlots - 1 - hand_ % kChunkSlots;  // nothing of it is in use
      continue;
    }
    const handover::NodeRecord& record = records_[hand_];
    if (record.mount_id == mount_id && record.open_count == 0) {
      offered.push_back(id_of(hand_, record.generation));
    }
  }
  return offered;
}

netfs::InodeRef NodeTable::inode(NodeId id) const {
  const MutexLock lock(mutex_);
  const std::optional<std::uint32_t> slot = find(id);
  return slot ? node(*slot).inode : nullptr;
}

bool NodeTable::with_node(NodeId id,
                          const std::function<void(handover::NodeRecord&, NodeOpen&)>& act) {
  const MutexLock lock(mutex_);
  const std::optional<std::uint32_t> slot = find(id);
  if (!slot) {
    return false;
  }
  Node& found = node(*slot);
  if (found.open == nullptr) {
    found.open = std::make_unique<NodeOpen>();
  }
  handover::NodeRecord& record = records_[*slot];
  act(record, *found.open);
  record.open_mode = static_cast<std::uint8_t>(found.open->mode);
  record.open_count = found.open->handles;
  record.backing_id = found.open->backing_id;
  if (found.open->mode == OpenMode::kClosed && !found.open->deciding &&
      found.open->backing_id == 0) {
    found.open.reset();  // at rest it takes no memory
  }
  return true;
}

void NodeTable::retire(NodeId id) {
  const MutexLock lock(mutex_);
  if (const auto slot = find(id)) {
    NodeId expected = id;
    node(*slot).inode->front_node().compare_exchange_strong(expected, 0);
  }
}

std::optional<NodeId> NodeTable::forget_contents(const netfs::Inode& inode) {
  const MutexLock lock(mutex_);
  const NodeId front = inode.front_node_id();
  const std::optional<std::uint32_t> slot = find(front);
  if (!slot) {
    return std::nullopt;
  }
  handover::NodeRecord& record = records_[*slot];
  const bool never_opened = record.coherency == decltype(record.coherency){};
  const bool held = record.open_mode == static_cast<std::uint8_t>(OpenMode::kPassthrough);
  if (!never_opened && !held) {
    const netfs::Attributes now = inode.attributes().attributes;
    record.size = now.size;
    record.coherency = netfs::coherency_of(now);
    record.flags |= handover::kNodePagesUnsure;
  }
  return front;
}

void NodeTable::note_listing(NodeId id, std::uint64_t verifier) {
  const MutexLock lock(mutex_);
  if (const auto slot = find(id)) {
    records_[*slot].directory_verifier = verifier;
  }
}

void NodeTable::drop_mount(std::uint32_t mount_id, const std::function<void(NodeOpen&&)>& each) {
  std::vector<Node> gone;
  {
    const MutexLock lock(mutex_);
    for (std::uint32_t slot = 0; slot < chunks_.size() * kChunkSlots; ++slot) {
      if (chunks_[slot / kChunkSlots] != nullptr && records_[slot].mount_id == mount_id) {
        gone.push_back(free_slot(slot));
      }
    }
  }
  for (Node& dropped : gone) {
    if (dropped.open != nullptr) {
      each(std::move(*dropped.open));
    }
  }
}

std::size_t NodeTable::size() const {
  const MutexLock lock(mutex_);
  return size_;
}

std::optional<std::uint32_t> NodeTable::find(NodeId id) const {
  const auto low = static_cast<std::uint32_t>(id);
  if (low < kFirstId) {
    return std::nullopt;
  }
  const auto slot = static_cast<std::uint32_t>(low - kFirstId);
  const std::size_t chunk = slot / kChunkSlots;
  if (chunk >= chunks_.size() || chunks_[chunk] == nullptr) {
    return std::nullopt;
  }
  const handover::NodeRecord& record = records_[slot];
  if (record.mount_id == 0 || record.generation != id >> kGenerationShift) {
    return std::nullopt;
  }
  return slot;
}

NodeTable::Node& NodeTable::node(std::uint32_t slot) const {
  return chunks_[slot / kChunkSlots]->nodes[slot % kChunkSlots];
}

bool NodeTable::serves_older_version(std::uint32_t slot) const {
  const Node& found = node(slot);
  return found.open != nullptr && found.open->mode == OpenMode::kPassthrough &&
         found.open->handles > 0 &&
         !netfs::same_version(found.open->version->attributes,
                              found.inode->attributes().attributes);
}

std::optional<std::uint32_t> NodeTable::take_slot() {
  if (chunks_with_room_.empty()) {
    auto unused = std::ranges::find_if(chunks_, [](const auto& chunk) { return chunk == nullptr; });
    const auto index = static_cast<std::uint32_t>(unused - chunks_.begin());
    if ((index + 1) * kChunkSlots > records_.capacity()) {
      return std::nullopt;
    }
    auto chunk = std::make_unique<Chunk>();
    chunk->nodes.resize(kChunkSlots);
    for (std::uint32_t i = kChunkSlots; i > 0; --i) {
      chunk->free.push_back(index * kChunkSlots + i - 1);
    }
    if (unused == chunks_.end()) {
      chunks_.push_back(std::move(chunk));
    } else {
      *unused = std::move(chunk);
    }
    chunks_with_room_.insert(index);
  }
  const std::uint32_t index = *chunks_with_room_.begin();
  Chunk& chunk = *chunks_[index];
  const std::uint32_t slot = chunk.free.back();
  chunk.free.pop_back();
  if (chunk.free.empty()) {
    chunks_with_room_.erase(index);
  }
  return slot;
}

NodeTable::Node NodeTable::free_slot(std::uint32_t slot) {
  const std::uint32_t index = slot / kChunkSlots;
  Chunk& chunk = *chunks_[index];
  Node gone = std::exchange(node(slot), {});
  NodeId expected = id_of(slot, records_[slot].generation);
  gone.inode->front_node().compare_exchange_strong(expected, 0);
  records_[slot] = {};
  chunk.free.push_back(slot);
  --size_;
  chunks_with_room_.insert(index);
  if (chunk.free.size() == kChunkSlots) {
    chunks_with_room_.erase(index);
    chunks_[index].reset();
    records_.release(index * kChunkSlots, kChunkSlots);
  }
  return gone;
}

}  // namespace larder::fuse
