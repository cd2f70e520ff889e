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

inline constexpr std::uint32_t kRecordsVersion = 4;

// One file or directory that the kernel knows of, at most 192 bytes.
//
// Nothing more leads to the object in the cache: fsid names the volume, the handle is the object's
// key, size and coherency are what its label is compared with. A handle longer than here does not
// exist in NFSv3.
struct NodeRecord {
  std::uint32_t generation;    // raised each time the slot is taken; with the slot it is the nodeid
  std::uint32_t mount_id;      // 0: the slot is free
  std::uint64_t lookup_count;  // references of the kernel; raised before the reply is written
  std::uint64_t fileid;
  std::uint64_t fsid;
  // The version that reads of the node give, bound by its opens: in passthrough that of the backing
  // file for as long as it is open, else the newest that was opened or that the server told of.
  std::uint64_t size;
  std::array<std::byte, 16> coherency;  // netfs::coherency_of; all zero: never opened
  std::uint64_t directory_verifier;     // NFSv3 cookie verifier of the listing given last
  std::uint32_t open_count;  // live opens of a file; the open mode is latched while it is not 0
  std::int32_t backing_id;   // the kernel's id, 0: none
  std::uint8_t type;         // netfs::FileType
  std::uint8_t open_mode;    // fuse::OpenMode, latched from first open to last close
  std::uint8_t flags;        // NodeFlags
  std::uint8_t handle_length;
  std::array<std::byte, 64> handle;  // the server's file handle
};

enum NodeFlags : std::uint8_t {
  kNodeAbandoned = 1,  // its registered file failed, or is that version no more: the next open gets
                       // a new node
  // The kernel may have pages that are not of the bound version, because that changed while the
  // node was open or is too young for its stamps: the next open drops them.
  kNodePagesUnsure = 2,
};

static_assert(sizeof(NodeRecord) <= 192);

// One open file or directory of a mount; slot and generation are the kernel's fh.
struct HandleRecord {
  static constexpr std::size_t kMostGroups = 32;

  std::uint64_t nodeid;  // as the kernel says it: 1 is the root
  // The version at the open; zero for a directory. What reads give is the node's.
  std::uint64_t size;
  std::array<std::byte, 16> coherency;
  std::uint32_t mount_id;  // 0: the slot is free
  std::uint32_t generation;
  std::uint32_t uid;  // of the opener, in whose name the server is asked
  std::uint32_t gid;
  std::uint32_t open_flags;  // of open(2)
  std::uint8_t open_mode;    // fuse::OpenMode
  std::uint8_t lost_write;   // an answered write could not be kept: the next fsync or close says so
  std::uint16_t group_count;  // of a longer list the first are kept
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

// A name that a file got at the server because it was removed while open: to be removed when the
// mount is over, by whoever comes then. Slots are used from the first on: behind one that never was
// there are no others.
struct HiddenNameRecord {
  static constexpr std::size_t kMostShareBytes = 256;
  static constexpr std::size_t kMostNameBytes = 64;

  std::uint32_t mount_id;  // 0: the slot is free; written last
  std::uint32_t ever_used;
  std::uint32_t uid;  // of who removed the file, with his group
  std::uint32_t gid;
  std::uint16_t share_length;
  std::uint8_t name_length;
  std::uint8_t handle_length;
  std::array<char, kMostShareBytes> share;  // netfs::Share::key
  std::array<char, kMostNameBytes> name;
  std::array<std::byte, 64> handle;  // of the directory
};

// How far a call has come that must not happen twice.
enum class CallState : std::uint8_t {
  kBegun = 1,     // nothing was asked for that would carry it out
  kSent = 2,      // the server may have carried it out
  kAnswered = 3,  // its answer is in the record, and may be with the kernel
};

// One call of the kernel that must not happen twice, from its arrival until its answer is with the
// kernel. Slots are used from the first on: behind one that never was there are no others.
// fuse/journal.h has the order in which it is written, and who reads what of it.
struct JournalRecord {
  static constexpr std::size_t kMostNameBytes = 64;
  static constexpr std::size_t kMostAnswerBytes = 144;  // CREATE's

  std::uint32_t mount_id;  // 0: the slot is free; written last
  std::uint32_t opcode;
  std::uint64_t unique;  // the kernel's, without the bit of a resend; 0: the slot never was used
  std::uint64_t nodeid;  // whose lookup count was raised for the answer; 0: none
  std::uint64_t fh;      // what was opened for the answer; 0: nothing
  std::uint64_t offset;  // where an append goes, with kCallHasOffset
  std::int32_t error;    // errno of the answer
  std::uint8_t state;    // CallState
  std::uint8_t flags;    // CallFlags
  std::uint8_t answer_length;
  std::uint8_t hidden_name_length;
  std::uint8_t made_length;
  std::array<std::byte, 7> reserved;
  std::array<std::byte, 8> verifier;             // of an exclusive creation, with kCallHasVerifier
  std::array<char, kMostNameBytes> hidden_name;  // for the open file that loses its name
  std::array<std::byte, 64> made;                // handle of what the server has made
  std::array<std::byte, kMostAnswerBytes> answer;  // behind the reply's header
};

enum CallFlags : std::uint8_t {
  kCallHasVerifier = 1,
  kCallHasOffset = 2,
  kCallHasHidden = 4,  // the file that is in the way has its hidden name
};

static_assert(sizeof(JournalRecord) == 336);

// A page of the bytes that WriteRecords are about.
struct WritePage {
  static constexpr std::uint32_t kBytes = 4096;

  std::array<std::byte, kBytes> bytes;
};

// There is a record for each page: no write is smaller.
inline constexpr std::uint32_t kMostWritePages = (256U << 20U) / WritePage::kBytes;

// Bytes of one file, behind each other, that were written by a program and answered before the
// server had them on its disk: to be sent by a next engine as netfs/write_store.h says. They begin
// at the page of the record's own number. The file is the mount's: handle and fsid name it as a
// NodeRecord does.
//
// An engine may be killed between any two stores. All but the last three members are written before
// mount_id, and not changed until that is 0 again. Bytes are written before the length that counts
// them; a length only grows, and one of 0 tells of nothing. The verifier is written before
// at_server, and counts while that is 1. So whoever finds a record finds the bytes that it speaks
// of, and no write is answered before its bytes are counted.
struct WriteRecord {
  std::uint32_t mount_id;  // 0: the slot is free; written last, cleared first
  std::uint32_t uid;       // in whose name it was written, with gid and groups
  std::uint32_t gid;
  std::uint16_t group_count;  // of a longer list the first are kept
  std::uint8_t handle_length;
  std::uint8_t unused;
  std::uint64_t order;  // of acceptance: later bytes of a file lie over those before
  std::uint64_t offset;
  std::uint64_t fsid;
  std::uint64_t fileid;
  std::array<std::uint32_t, HandleRecord::kMostGroups> groups;
  std::array<std::byte, 64> handle;   // the server's file handle
  std::array<std::byte, 8> verifier;  // of the answer to their WRITE
  std::uint32_t at_server;            // 1: the server has them all, and needs a COMMIT
  std::uint32_t length;               // in bytes
};

static_assert(sizeof(WriteRecord) == 256);
static_assert(std::is_trivially_copyable_v<NodeRecord>);
static_assert(std::is_trivially_copyable_v<JournalRecord>);
static_assert(std::is_trivially_copyable_v<HiddenNameRecord>);
static_assert(std::is_trivially_copyable_v<WriteRecord>);
static_assert(std::is_trivially_copyable_v<WritePage>);
static_assert(std::is_trivially_copyable_v<HandleRecord>);
static_assert(std::is_trivially_copyable_v<BackingRecord>);

}  // namespace larder::handover
