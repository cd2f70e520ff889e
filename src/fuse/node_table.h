// NodeTable: the files and directories that the kernel knows, of all mounts, by nodeid.
//
// A nodeid is a slot of the keeper's table and a generation: it names one file for as long as the
// kernel remembers it, also across the life of an engine, and is never used twice. The record is in
// shared memory; what only this engine needs (the inode, the open state) is beside it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fuse/node_open.h"
#include "handover/records.h"
#include "handover/table.h"
#include "netfs/inode.h"

namespace larder::fuse {

using NodeId = std::uint64_t;

// Threads: any. Life: the engine's; outlives every session.
class NodeTable {
 public:
  // Above so many nodes the kernel is asked to forget some: about half a gigabyte of memory.
  static constexpr std::size_t kMostKept = 1'000'000;
  // How many are offered to it at a time, each time that half as many more have become known.
  static constexpr std::size_t kOffered = 256;

  explicit NodeTable(handover::Table<handover::NodeRecord> records,
                     std::size_t most_kept = kMostKept);
  ~NodeTable();
  NodeTable(const NodeTable&) = delete;
  NodeTable& operator=(const NodeTable&) = delete;

  // The node that a LOOKUP of this inode is answered with, its lookup count raised by one. A node
  // that is latched to an older version gets a sibling. kNoSpace: the table is full.
  [[nodiscard]] Result<NodeId> reference(std::uint32_t mount_id, const netfs::InodeRef& inode)
      EXCLUDES(mutex_);
  // The kernel gives `count` references back; at none the node is gone. What its open state still
  // held is returned (null: nothing), for the caller to give back.
  [[nodiscard]] std::unique_ptr<NodeOpen> forget(NodeId id, std::uint64_t count) EXCLUDES(mutex_);
  // When too many nodes are known: some of the mount's that are not open, the longest known first,
  // for the kernel to forget. Empty as a rule, and then costs nothing.
  [[nodiscard]] std::vector<NodeId> take_surplus(std::uint32_t mount_id) EXCLUDES(mutex_);
  // Null: no such node (any more).
  [[nodiscard]] netfs::InodeRef inode(NodeId id) const EXCLUDES(mutex_);

  // Runs `act` on the record and open state of a node under the table's lock: it must not block,
  // call out or come back here. False: no such node.
  bool with_node(NodeId id, const std::function<void(handover::NodeRecord&, NodeOpen&)>& act)
      EXCLUDES(mutex_);
  // Whether a LOOKUP of the inode would be answered with this node; it becomes so when the kernel
  // has forgotten the one that was, or nobody was.
  [[nodiscard]] bool is_front(NodeId id, netfs::Inode& inode) EXCLUDES(mutex_);
  // The next LOOKUP of the inode makes a new node beside this one.
  void retire(NodeId id) EXCLUDES(mutex_);
  // A listing of the directory was given, of which the server said this verifier.
  void note_listing(NodeId id, std::uint64_t verifier) EXCLUDES(mutex_);
  // The file changed: the kernel may have pages of an older version in the inode's node, which is
  // returned. Its record says the new version, unless its holders go on reading a backing file.
  [[nodiscard]] std::optional<NodeId> forget_contents(const netfs::Inode& inode) EXCLUDES(mutex_);

  // The mount is over: all its nodes go. What their open states held is handed to `each`.
  void drop_mount(std::uint32_t mount_id, const std::function<void(NodeOpen&&)>& each)
      EXCLUDES(mutex_);

  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);

 private:
  // Slots are given out and memory is given back by the chunk.
  static constexpr std::uint32_t kChunkSlots = 4096;
  static constexpr unsigned kGenerationShift = 32;
  // Of a search for what may be offered: it holds the lock.
  static constexpr std::uint32_t kMostSlotsSearched = 4096;
  // Nodeids 0 and 1 mean "none" and "the root" to the kernel.
  static constexpr NodeId kFirstId = 16;

  struct Node {
    netfs::InodeRef inode;
    std::unique_ptr<NodeOpen> open;  // null while it was never opened since the last rest
  };

  struct Chunk {
    std::vector<Node> nodes;
    std::vector<std::uint32_t> free;  // slots
  };

  [[nodiscard]] static NodeId id_of(std::uint32_t slot, std::uint32_t generation) {
    return (NodeId{generation} << kGenerationShift) | (slot + kFirstId);
  }

  [[nodiscard]] std::optional<std::uint32_t> find(NodeId id) const REQUIRES(mutex_);
  [[nodiscard]] Node& node(std::uint32_t slot) const REQUIRES(mutex_);
  [[nodiscard]] bool serves_older_version(std::uint32_t slot) const REQUIRES(mutex_);
  [[nodiscard]] std::optional<std::uint32_t> take_slot() REQUIRES(mutex_);
  // What the node held, to be destroyed without the lock.
  [[nodiscard]] Node free_slot(std::uint32_t slot) REQUIRES(mutex_);

  const std::size_t most_kept_;
  std::atomic<bool> surplus_{false};  // take_surplus() has something to do

  mutable Mutex mutex_{LockRank::kNode};
  handover::Table<handover::NodeRecord> records_ GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Chunk>> chunks_ GUARDED_BY(mutex_);
  std::set<std::uint32_t> chunks_with_room_ GUARDED_BY(mutex_);  // the first are filled first
  std::uint32_t last_generation_ GUARDED_BY(mutex_) = 0;
  std::size_t size_ GUARDED_BY(mutex_) = 0;
  std::size_t made_since_offer_ GUARDED_BY(mutex_) = 0;
  std::uint32_t hand_ GUARDED_BY(mutex_) = 0;  // the slot from which the next are offered
};

}  // namespace larder::fuse
