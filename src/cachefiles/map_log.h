// The map log of a larger object: which bytes of its backing file are present, in records that are
// appended after the data. docs/on-disk-format.md has the bytes.
//
// A record that does not check is skipped: it says nothing. The nonce of the header is part of
// every record's checksum, so that records of another log, in blocks that came back, say nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/result.h"
#include "cachefiles/stamp.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

inline constexpr std::uint64_t kUnitBytes = 4096;                      // of the content map
inline constexpr std::uint64_t kCellBytes = std::uint64_t{64} * 1024;  // of a checksum
inline constexpr std::size_t kMapRecordBytes = 128;                    // the header too
inline constexpr std::size_t kMostCells = 22;  // that a record's run may touch

using MapRecordBytes = std::array<std::byte, kMapRecordBytes>;
// SHA-256 of volume key and key, cut to 16 bytes: whose log it is.
using ObjectDigest = std::array<std::byte, 16>;

[[nodiscard]] ObjectDigest digest_of_object(std::string_view volume_key, std::string_view key);

struct MapHeader {
  std::uint64_t size = 0;
  fscache::CoherencyData coherency{};
  ObjectDigest digest{};
  std::uint64_t nonce = 0;

  bool operator==(const MapHeader&) const = default;
};

enum class MapRecordType : std::uint8_t {
  kPresent = 1,  // the run is there; a checksum for each cell it touches, of the run's part of it
  kDropped = 2,  // the run turned out wrong: not there any more
  kSealed = 3,   // nothing was written since: the backing file's size and own modification time
};

struct MapRecord {
  MapRecordType type = MapRecordType::kPresent;
  Stamp stamp;
  ByteRange run;                         // kPresent, kDropped: units of 4 KiB, or up to the end
  std::vector<std::uint32_t> checksums;  // kPresent
  bool complete = false;                 // kSealed: the server confirmed the version at the end
  os::FileTime modified;                 // kSealed

  bool operator==(const MapRecord&) const = default;
};

// How many cells the run touches.
[[nodiscard]] std::size_t cells_of(ByteRange run);

[[nodiscard]] MapRecordBytes encode_map_header(const MapHeader& header);
[[nodiscard]] Result<MapHeader> decode_map_header(Bytes bytes);
[[nodiscard]] MapRecordBytes encode_map_record(const MapRecord& record, std::uint64_t nonce);
// nullopt: says nothing.
[[nodiscard]] std::optional<MapRecord> decode_map_record(Bytes bytes, std::uint64_t nonce);

}  // namespace larder::cachefiles
