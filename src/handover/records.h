// The records that the engine keeps in the keeper's memory, so that they outlive it.
//
// Fixed sizes, plain old data, native byte order (keeper and engine run on one machine). The keeper
// makes the memory and never looks inside; the engine is the only writer. A changed layout raises
// kRecordsVersion: an engine of another version starts with empty tables and a clear message.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace larder::handover {

inline constexpr std::uint32_t kRecordsVersion = 1;

// One file or directory that the kernel knows of, at most 192 bytes.
struct NodeRecord {
  std::uint32_t generation;    // raised each time the slot is taken; with the slot it is the nodeid
  std::uint32_t mount_id;      // 0: the slot is free
  std::uint64_t lookup_count;  // references of the kernel; raised before the reply is written
  std::uint64_t fileid;
  std::uint64_t fsid;
  std::uint64_t size;                   // of the version that is bound to the node
  std::array<std::byte, 16> coherency;  // of that version; all zero: none was bound yet
  std::uint64_t directory_verifier;     // NFSv3 cookie verifier of the listing given last
  std::uint32_t open_count;             // live opens; the open mode is latched while it is not 0
  std::int32_t backing_id;              // the kernel's id, 0: none
  std::uint8_t type;                    // netfs::FileType
  std::uint8_t open_mode;               // fuse::OpenMode, latched from first open to last close
  std::uint8_t flags;                   // NodeFlags
  std::uint8_t handle_length;
  std::array<std::byte, 64> handle;  // the server's file handle
};

enum NodeFlags : std::uint8_t {
  kNodeAbandoned = 1,  // the cache under its registered file failed: the next open gets a new node
};

static_assert(sizeof(NodeRecord) <= 192);

// One open file or directory of a mount.
struct HandleRecord {
  static constexpr std::size_t kMostGroups = 32;

  std::uint64_t nodeid;
  std::uint32_t mount_id;  // 0: the slot is free
  std::uint32_t generation;
  std::uint32_t uid;
  std::uint32_t gid;
  std::uint32_t open_flags;  // of open(2)
  std::uint8_t open_mode;    // fuse::OpenMode
  std::uint8_t lost_write;   // an answered write could not be kept: the next fsync or close says so
  std::uint16_t group_count;
  std::array<std::uint32_t, kMostGroups> groups;
};

// One file registered with the kernel for passthrough.
struct BackingRecord {
  std::uint32_t mount_id;  // 0: the slot is free
  std::int32_t backing_id;
  std::uint64_t nodeid;
  std::uint64_t device;  // st_dev and st_ino of the backing file
  std::uint64_t inode;
  std::uint64_t charged_bytes;  // what it takes of the cache's disk also when unlinked
};

static_assert(std::is_trivially_copyable_v<NodeRecord>);
static_assert(std::is_trivially_copyable_v<HandleRecord>);
static_assert(std::is_trivially_copyable_v<BackingRecord>);

}  // namespace larder::handover
