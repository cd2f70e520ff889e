// WriteStore: where the bytes of one mount lie from the answer to their write(2) until they are on
// the server's disk.
//
// With a keeper that is memory that outlives us, and what it says of the bytes is enough for the
// next process to bring them to the server:
//
// - it sends what the server has not answered, in the order of reserve(), and what does not overlap
//   side by side; each in the name that stands with it;
// - it has all of a file committed. Where the verifier is not that of note_at_server(), all of the
//   file goes again, in order: the server lost some of it.
//
// For that the writer keeps to this: a space is let go when its bytes are on the server's disk and
// no older bytes are left that would be sent over them, or when they are lost and who asks is told.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "netfs/attributes.h"
#include "netfs/changes.h"

namespace larder::netfs {

// Whose bytes they are.
struct StoredWrite {
  FileHandle file;
  std::uint64_t fsid = 0;
  std::uint64_t fileid = 0;
  std::uint64_t offset = 0;  // of the first
  CredentialRef credential;
};

// Bytes that lie behind each other in a file. Let go when destroyed, which may give memory back to
// the system: not under a lock.
// Threads: external synchronisation. Life: the store outlives it.
class WriteSpace {
 public:
  WriteSpace() = default;
  WriteSpace(const WriteSpace&) = delete;
  WriteSpace& operator=(const WriteSpace&) = delete;
  virtual ~WriteSpace() = default;

  // Puts bytes, one at least, behind those that are here, as many as there is room for: says how
  // many. Once it returns they outlive us. What bytes() gave before is no longer valid.
  [[nodiscard]] virtual std::size_t append(Bytes bytes) = 0;
  // Nothing more is appended: room that was not used is given back.
  virtual void close() = 0;
  // The server has them all, not on its disk yet, and will have lost them when its verifier is
  // another. After close().
  virtual void note_at_server(const WriteVerifier& verifier) = 0;
  // They are to be sent again.
  virtual void note_lost() = 0;

  [[nodiscard]] virtual Bytes bytes() const = 0;
};

// Threads: any; calls do not wait. Life: the share's; outlives its spaces.
class WriteStore {
 public:
  WriteStore() = default;
  WriteStore(const WriteStore&) = delete;
  WriteStore& operator=(const WriteStore&) = delete;
  virtual ~WriteStore() = default;

  // A space for `most` bytes if all goes well; less may fit. Null: there is no room, or other
  // mounts need it more.
  [[nodiscard]] virtual std::unique_ptr<WriteSpace> reserve(const StoredWrite& what,
                                                            std::size_t most) = 0;
};

// What a mount that nobody else shares a store with may have in it.
inline constexpr std::uint64_t kMostStoredBytes = std::uint64_t{256} << 20;

// A store that ends with us, of so many bytes.
[[nodiscard]] std::unique_ptr<WriteStore> make_heap_write_store(std::uint64_t capacity);

}  // namespace larder::netfs
