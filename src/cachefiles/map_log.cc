#include "cachefiles/map_log.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <nettle/sha2.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefiles/checksum.h"

namespace larder::cachefiles {
namespace {

constexpr std::string_view kMapMagic = "LarderML";
constexpr std::uint32_t kMapFormat = 1;
constexpr std::size_t kRecordChecksum = kMapRecordBytes - 4;

// Where a record's fields begin.
constexpr std::size_t kRecordFlags = 1;
constexpr std::size_t kRecordCount = 2;
constexpr std::size_t kRecordGeneration = 4;
constexpr std::size_t kRecordEpoch = 8;
constexpr std::size_t kRecordOffset = 16;
constexpr std::size_t kRecordLength = 24;
constexpr std::size_t kRecordRunChecksums = 32;

// Where the header's fields begin.
constexpr std::size_t kHeaderFormat = 8;
constexpr std::size_t kHeaderSize = 16;
constexpr std::size_t kHeaderCoherency = 24;
constexpr std::size_t kHeaderNonce = 40;
constexpr std::size_t kHeaderDigest = 48;

std::uint32_t checksum_of(Bytes record, std::uint64_t nonce) {
  std::array<std::byte, 8> seed{};
  store_be(seed.data(), nonce);
  return crc32c(record.first(kRecordChecksum), crc32c(seed));
}

void hash_counted(sha256_ctx& context, std::string_view text) {
  std::array<std::byte, 4> length{};
  store_be(length.data(), static_cast<std::uint32_t>(text.size()));
  sha256_update(&context, length.size(), reinterpret_cast<const std::uint8_t*>(length.data()));
  sha256_update(&context, text.size(), reinterpret_cast<const std::uint8_t*>(text.data()));
}

bool run_makes_sense(const MapRecord& record, std::size_t count) {
  const ByteRange run = record.run;
  if (run.empty() || run.offset % kUnitBytes != 0 || run.end() < run.offset ||
      run.end() > (std::uint64_t{1} << 62U)) {
    return false;
  }
  return record.type == MapRecordType::kDropped ? count == 0
                                                : count == cells_of(run) && count <= kMostCells;
}

}  // namespace

ObjectDigest digest_of_object(std::string_view volume_key, std::string_view key) {
  sha256_ctx context{};
  sha256_init(&context);
  hash_counted(context, volume_key);
  hash_counted(context, key);
  ObjectDigest digest{};
  sha256_digest(&context, digest.size(), reinterpret_cast<std::uint8_t*>(digest.data()));
  return digest;
}

std::size_t cells_of(ByteRange run) {
  return static_cast<std::size_t>(run.rounded_out(kCellBytes).length / kCellBytes);
}

MapRecordBytes encode_map_header(const MapHeader& header) {
  MapRecordBytes bytes{};
  std::ranges::copy(bytes_of(kMapMagic), bytes.begin());
  store_be(bytes.data() + kHeaderFormat, kMapFormat);
  store_be(bytes.data() + kHeaderSize, header.size);
  std::ranges::copy(header.coherency, bytes.begin() + kHeaderCoherency);
  store_be(bytes.data() + kHeaderNonce, header.nonce);
  std::ranges::copy(header.digest, bytes.begin() + kHeaderDigest);
  store_be(bytes.data() + kRecordChecksum, crc32c(Bytes(bytes).first(kRecordChecksum)));
  return bytes;
}

Result<MapHeader> decode_map_header(Bytes bytes) {
  if (bytes.size() < kMapRecordBytes) {
    return fail(Errc::kCorrupt, "a map log without a header");
  }
  bytes = bytes.first(kMapRecordBytes);
  if (load_be<std::uint32_t>(bytes.data() + kRecordChecksum) !=
          crc32c(bytes.first(kRecordChecksum)) ||
      text_of(bytes.first(kMapMagic.size())) != kMapMagic ||
      load_be<std::uint32_t>(bytes.data() + kHeaderFormat) != kMapFormat) {
    return fail(Errc::kCorrupt, "the header of a map log does not check");
  }
  MapHeader header;
  header.size = load_be<std::uint64_t>(bytes.data() + kHeaderSize);
  std::ranges::copy(bytes.subspan(kHeaderCoherency, header.coherency.size()),
                    header.coherency.begin());
  header.nonce = load_be<std::uint64_t>(bytes.data() + kHeaderNonce);
  std::ranges::copy(bytes.subspan(kHeaderDigest, header.digest.size()), header.digest.begin());
  return header;
}

MapRecordBytes encode_map_record(const MapRecord& record, std::uint64_t nonce) {
  CHECK(record.checksums.size() <= kMostCells);
  MapRecordBytes bytes{};
  bytes[0] = static_cast<std::byte>(record.type);
  store_be(bytes.data() + kRecordGeneration, record.stamp.generation);
  store_be(bytes.data() + kRecordEpoch, record.stamp.epoch);
  store_be(bytes.data() + kRecordOffset, record.run.offset);
  store_be(bytes.data() + kRecordLength, record.run.length);
  if (record.type == MapRecordType::kSealed) {
    bytes[kRecordFlags] = static_cast<std::byte>(record.complete ? 1 : 0);
    store_be(bytes.data() + kRecordOffset, static_cast<std::uint64_t>(record.modified.seconds));
    store_be(bytes.data() + kRecordLength, static_cast<std::uint64_t>(record.modified.nanoseconds));
  }
  store_be(bytes.data() + kRecordCount, static_cast<std::uint16_t>(record.checksums.size()));
  for (std::size_t i = 0; i < record.checksums.size(); ++i) {
    store_be(bytes.data() + kRecordRunChecksums + 4 * i, record.checksums[i]);
  }
  store_be(bytes.data() + kRecordChecksum, checksum_of(bytes, nonce));
  return bytes;
}

std::optional<MapRecord> decode_map_record(Bytes bytes, std::uint64_t nonce) {
  if (bytes.size() != kMapRecordBytes ||
      load_be<std::uint32_t>(bytes.data() + kRecordChecksum) != checksum_of(bytes, nonce)) {
    return std::nullopt;
  }
  MapRecord record;
  record.type = static_cast<MapRecordType>(bytes[0]);
  record.stamp = {load_be<std::uint32_t>(bytes.data() + kRecordGeneration),
                  load_be<std::uint32_t>(bytes.data() + kRecordEpoch)};
  const auto offset = load_be<std::uint64_t>(bytes.data() + kRecordOffset);
  const auto length = load_be<std::uint64_t>(bytes.data() + kRecordLength);
  if (record.type == MapRecordType::kSealed) {
    record.complete = bytes[kRecordFlags] == std::byte{1};
    record.modified = {static_cast<std::int64_t>(offset), static_cast<std::uint32_t>(length)};
    return record;
  }
  const std::size_t count = load_be<std::uint16_t>(bytes.data() + kRecordCount);
  record.run = {offset, length};
  if ((record.type != MapRecordType::kPresent && record.type != MapRecordType::kDropped) ||
      !run_makes_sense(record, count)) {
    return std::nullopt;
  }
  for (std::size_t i = 0; i < count; ++i) {
    record.checksums.push_back(load_be<std::uint32_t>(bytes.data() + kRecordRunChecksums + 4 * i));
  }
  return record;
}

}  // namespace larder::cachefiles
