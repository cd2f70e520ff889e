// The label of a backing file: the extended attribute that says whose bytes it holds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "cachefiles/stamp.h"
#include "fscache/backend.h"

namespace larder::cachefiles {

inline constexpr std::string_view kLabelName = "user.CacheFiles.cache";
// A few bytes more would cost a block an object on ext4 with inodes of 256 bytes.
inline constexpr std::size_t kLabelBytes = 50;

struct Label {
  std::uint64_t size = 0;  // of the file on the server
  fscache::CoherencyData coherency{};
  Stamp stamp;
  std::uint32_t checksum = 0;  // of a small file's identity and bytes; 0 for larger ones
  bool small = false;          // the data file is all there is: no map log
  bool complete = false;       // confirmed by the server after the last byte (small files only)
  bool racy = false;           // see ObjectDescription::racy
  bool dirty = false;          // being changed in place: not to be used after a crash

  bool operator==(const Label&) const = default;
};

[[nodiscard]] std::array<std::byte, kLabelBytes> encode_label(const Label& label);
// kCorrupt when it is not one of ours, with the reason.
[[nodiscard]] Result<Label> decode_label(Bytes bytes);

// Of the same version: size and coherency data agree.
[[nodiscard]] bool same_version(const Label& label, const fscache::ObjectDescription& wanted);

// Seeds the checksum of a small file, so that neither another object's bytes nor those of another
// version fit.
[[nodiscard]] std::uint32_t identity_checksum(std::string_view volume_key,
                                              const fscache::ObjectDescription& object);

}  // namespace larder::cachefiles
