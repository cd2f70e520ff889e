// What a server says of a file, in the words that all network filesystems share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace larder::netfs {

// Seconds and nanoseconds since 1970 by the server's clock, which may differ from ours by hours.
struct Timestamp {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;

  auto operator<=>(const Timestamp&) const = default;
};

enum class FileType : std::uint8_t {
  kRegular = 1,
  kDirectory,
  kBlockDevice,
  kCharacterDevice,
  kSymlink,
  kSocket,
  kFifo,
};

struct Attributes {
  FileType type = FileType::kRegular;
  std::uint32_t mode = 0;  // permission bits with suid, sgid, sticky; not the type
  std::uint32_t link_count = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;  // bytes
  std::uint64_t used = 0;  // bytes of real storage at the server
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::uint64_t fsid = 0;
  std::uint64_t fileid = 0;
  Timestamp accessed, modified, changed;

  bool operator==(const Attributes&) const = default;
};

// The server's name of a file: opaque, at most 64 bytes (NFS3_FHSIZE), stable across restarts.
class FileHandle {
 public:
  static constexpr std::size_t kMostBytes = 64;

  FileHandle() = default;

  explicit FileHandle(Bytes bytes) : length_(static_cast<std::uint8_t>(bytes.size())) {
    CHECK(bytes.size() <= kMostBytes);
    std::memcpy(bytes_.data(), bytes.data(), bytes.size());
  }

  [[nodiscard]] Bytes bytes() const { return Bytes(bytes_).first(length_); }

  bool operator==(const FileHandle& other) const {
    return text_of(bytes()) == text_of(other.bytes());
  }

 private:
  std::array<std::byte, kMostBytes> bytes_{};
  std::uint8_t length_ = 0;
};

struct FileHandleHash {
  std::size_t operator()(const FileHandle& handle) const {
    return std::hash<std::string_view>()(text_of(handle.bytes()));
  }
};

// In whose name the server is asked. Shared, never changed once made.
struct Credential {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::vector<std::uint32_t> groups;  // supplementary, any number; an adapter sends what it can

  bool operator==(const Credential&) const = default;
};

using CredentialRef = std::shared_ptr<const Credential>;

}  // namespace larder::netfs
