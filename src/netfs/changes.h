// What calls that change a share ask of a server, and what they tell: NFSv3's words, which other
// network filesystems translate (RFC 1813: sattr3, createhow3, wcc_data, stable_how).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>

#include "base/bytes.h"
#include "netfs/attributes.h"

namespace larder::netfs {

// A stamp to be set: the server's present time, or one of the caller's.
struct ServerNow {};

using StampChange = std::variant<ServerNow, Timestamp>;

// What is to be set; what is left out stays as it is. Also the attributes of something new.
struct AttributeChanges {
  std::optional<std::uint32_t> mode;  // permission bits with suid, sgid, sticky
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<StampChange> accessed;
  std::optional<StampChange> modified;
};

// Size and stamps a moment before a change: equal to what is known, nobody else was in between.
struct BeforeChange {
  std::uint64_t size = 0;
  Timestamp modified, changed;
};

// A file or directory around a call that changed it (wcc_data). Servers may leave out either.
struct Change {
  std::optional<BeforeChange> before;
  std::optional<Attributes> after;
};

// Distinguishes one exclusive creation from all others, also those of other clients.
using CreateVerifier = std::array<std::byte, 8>;

// What a creation does with a name that is there.
enum class CreateMode : std::uint8_t {
  kUnchecked,  // takes the file that is there; its attributes but for the size stay
  kGuarded,    // EEXIST
  // EEXIST, but not for a repetition: needs a verifier, sets no attributes. Servers keep the
  // verifier in the file's stamps: the caller's SETATTR follows, with mode, owner and both stamps.
  kExclusive,
};

struct CreateOrder {
  CreateMode mode = CreateMode::kUnchecked;
  AttributeChanges attributes;  // unless kExclusive
  CreateVerifier verifier{};    // only kExclusive
};

// A directory, symlink, device, FIFO or socket to be made.
struct MakeOrder {
  FileType type = FileType::kDirectory;  // anything but kRegular
  AttributeChanges attributes;
  std::uint32_t device_major = 0;  // devices only
  std::uint32_t device_minor = 0;
};

// Something new has a name. NFSv3 lets a server leave out handle and attributes: LOOKUP tells.
struct CreateReply {
  std::optional<FileHandle> handle;
  std::optional<Attributes> attributes;
  Change directory;
};

struct RenameReply {
  Change from;
  Change to;  // the same directory's when it is one
};

struct LinkReply {
  std::optional<Attributes> attributes;  // of the file
  Change directory;
};

// How safe written bytes are, in rising order (stable_how).
enum class Stability : std::uint8_t {
  kUnstable,  // in the server's memory, until a commit
  kDataSync,  // the data, and what is needed to find it, is on its disk
  kFileSync,  // all attributes too
};

// Changes from one life of a server to the next: what it had in memory is gone with the old one.
using WriteVerifier = std::array<std::byte, 8>;

struct WriteOrder {
  std::uint64_t offset = 0;
  Bytes source;  // at most write_size bytes, the adapter's until done has run, also after cancel()
  Stability stability = Stability::kUnstable;  // at least
};

struct WriteReply {
  std::size_t length = 0;  // bytes from the start of the source that were written; at least one
  Stability stability = Stability::kUnstable;  // less than was asked at a faulty server: commit
  WriteVerifier verifier{};
  Change file;
};

struct CommitReply {
  WriteVerifier verifier{};
  Change file;
};

}  // namespace larder::netfs
