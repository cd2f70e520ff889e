// ContentMap: which bytes of a backing file are present, in units of 4 KiB, with their checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/byte_range.h"
#include "base/range_set.h"

namespace larder::cachefiles {

// The bytes of one checksum: a run inside one cell.
struct MapPiece {
  ByteRange range;
  std::uint32_t checksum = 0;
};

// Twelve bytes for each 64 KiB present; neighbours inside a cell are joined.
// Files of up to kMostFileBytes. Threads: external synchronisation.
class ContentMap {
 public:
  static constexpr std::uint64_t kMostFileBytes = std::uint64_t{4096} << 32U;

  explicit ContentMap(std::uint64_t file_bytes) : file_bytes_(file_bytes) {}

  [[nodiscard]] std::uint64_t file_bytes() const { return file_bytes_; }

  // The whole units inside `range`, where the last one may be cut short by the end of the file.
  [[nodiscard]] ByteRange whole_units_in(ByteRange range) const;
  // `range` grown to whole units, cut at the end of the file.
  [[nodiscard]] ByteRange units_around(ByteRange range) const;

  // `checksums`: one for each cell that the run touches. The run is whole units of which none is
  // present.
  void add(ByteRange run, std::span<const std::uint32_t> checksums, bool verified);
  // Removes every piece that has a byte of `range`, whole.
  void remove(ByteRange range);
  void clear();
  // The checksum of these bytes was looked at since the cache was bound.
  void mark_verified(ByteRange piece);
  // All are to be looked at again.
  void doubt();

  [[nodiscard]] const RangeSet& present() const { return present_; }

  [[nodiscard]] bool full() const { return present_.contains({0, file_bytes_}); }

  [[nodiscard]] bool has_unverified(ByteRange range) const;
  // The pieces with a byte of `range` whose checksums were not yet looked at.
  [[nodiscard]] std::vector<MapPiece> unverified_in(ByteRange range) const;
  // All pieces with a byte of `range`.
  [[nodiscard]] std::vector<MapPiece> pieces_in(ByteRange range) const;
  [[nodiscard]] std::vector<MapPiece> pieces() const;

 private:
  struct Piece {
    std::uint32_t first_unit = 0;
    std::uint16_t units = 0;
    bool verified = false;
    std::uint32_t checksum = 0;
  };

  [[nodiscard]] ByteRange range_of(const Piece& piece) const;
  [[nodiscard]] bool joinable(const Piece& left, const Piece& right) const;
  void insert(const Piece& piece);
  // The first piece that ends after `offset`.
  [[nodiscard]] std::vector<Piece>::iterator find(std::uint64_t offset);
  [[nodiscard]] std::vector<Piece>::const_iterator find(std::uint64_t offset) const;

  std::uint64_t file_bytes_;
  RangeSet present_;
  std::vector<Piece> pieces_;  // in order, disjoint, each within one cell
  std::size_t unverified_ = 0;
};

}  // namespace larder::cachefiles
