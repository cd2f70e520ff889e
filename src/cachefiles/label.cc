#include "cachefiles/label.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefiles/checksum.h"
#include "fscache/backend.h"

namespace larder::cachefiles {
namespace {

constexpr std::byte kTypeData{1};
constexpr std::byte kContentSingle{1};  // all there, in one piece
constexpr std::byte kContentMapped{3};  // piecemeal
constexpr std::byte kFormat{1};

constexpr std::uint16_t kSmall = 1;
constexpr std::uint16_t kComplete = 2;
constexpr std::uint16_t kRacy = 4;
constexpr std::uint16_t kDirty = 8;
constexpr std::uint16_t kAllFlags = kSmall | kComplete | kRacy | kDirty;

// Where the fields begin.
constexpr std::size_t kZeroPoint = 8;
constexpr std::size_t kType = 16;
constexpr std::size_t kContent = 17;
constexpr std::size_t kCoherency = 18;
constexpr std::size_t kGeneration = 34;
constexpr std::size_t kEpoch = 38;
constexpr std::size_t kChecksum = 42;
constexpr std::size_t kFlags = 46;
constexpr std::size_t kFormatAt = 48;
constexpr std::size_t kZero = 49;

std::uint16_t flags_of(const Label& label) {
  unsigned flags = label.small ? kSmall : 0U;
  flags |= label.complete ? kComplete : 0U;
  flags |= label.racy ? kRacy : 0U;
  flags |= label.dirty ? kDirty : 0U;
  return static_cast<std::uint16_t>(flags);
}

}  // namespace

std::array<std::byte, kLabelBytes> encode_label(const Label& label) {
  std::array<std::byte, kLabelBytes> bytes{};
  store_be<std::uint64_t>(bytes.data(), label.size);
  bytes[kType] = kTypeData;
  bytes[kContent] = label.small ? kContentSingle : kContentMapped;
  std::ranges::copy(label.coherency, bytes.begin() + kCoherency);
  store_be<std::uint32_t>(bytes.data() + kGeneration, label.stamp.generation);
  store_be<std::uint32_t>(bytes.data() + kEpoch, label.stamp.epoch);
  store_be<std::uint32_t>(bytes.data() + kChecksum, label.checksum);
  store_be<std::uint16_t>(bytes.data() + kFlags, flags_of(label));
  bytes[kFormatAt] = kFormat;
  return bytes;
}

Result<Label> decode_label(Bytes bytes) {
  if (bytes.size() != kLabelBytes) {
    return fail(Errc::kCorrupt, fmt::format("a label of {} bytes", bytes.size()));
  }
  const auto flags = load_be<std::uint16_t>(bytes.data() + kFlags);
  const std::byte content = (flags & kSmall) != 0 ? kContentSingle : kContentMapped;
  if (bytes[kType] != kTypeData || bytes[kContent] != content || bytes[kFormatAt] != kFormat ||
      bytes[kZero] != std::byte{0} || (flags & ~kAllFlags) != 0 ||
      load_be<std::uint64_t>(bytes.data() + kZeroPoint) != 0) {
    return fail(Errc::kCorrupt, "a label of another type or format");
  }
  Label label;
  label.size = load_be<std::uint64_t>(bytes.data());
  std::ranges::copy(bytes.subspan(kCoherency, label.coherency.size()), label.coherency.begin());
  label.stamp = {load_be<std::uint32_t>(bytes.data() + kGeneration),
                 load_be<std::uint32_t>(bytes.data() + kEpoch)};
  label.checksum = load_be<std::uint32_t>(bytes.data() + kChecksum);
  label.small = (flags & kSmall) != 0;
  label.complete = (flags & kComplete) != 0;
  label.racy = (flags & kRacy) != 0;
  label.dirty = (flags & kDirty) != 0;
  return label;
}

bool same_version(const Label& label, const fscache::ObjectDescription& wanted) {
  return label.size == wanted.size && label.coherency == wanted.coherency;
}

std::uint32_t identity_checksum(std::string_view volume_key,
                                const fscache::ObjectDescription& object) {
  std::array<std::byte, 12> numbers{};
  store_be<std::uint64_t>(numbers.data(), object.size);
  store_be<std::uint32_t>(numbers.data() + 8, static_cast<std::uint32_t>(object.key.size()));
  std::uint32_t sum = crc32c(bytes_of(volume_key));
  sum = crc32c(numbers, sum);
  sum = crc32c(bytes_of(object.key), sum);
  return crc32c(object.coherency, sum);
}

}  // namespace larder::cachefiles
