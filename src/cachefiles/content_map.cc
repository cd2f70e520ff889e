#include "cachefiles/content_map.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

#include "base/byte_range.h"
#include "base/check.h"
#include "cachefiles/checksum.h"
#include "cachefiles/map_log.h"

namespace larder::cachefiles {

ByteRange ContentMap::whole_units_in(ByteRange range) const {
  const std::uint64_t begin = (range.offset + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
  const std::uint64_t end =
      range.end() >= file_bytes_ ? file_bytes_ : range.end() / kUnitBytes * kUnitBytes;
  return ByteRange::between(begin, end);
}

ByteRange ContentMap::units_around(ByteRange range) const {
  const ByteRange around = range.rounded_out(kUnitBytes);
  return around.intersection({0, file_bytes_});
}

ByteRange ContentMap::range_of(const Piece& piece) const {
  const ByteRange units{piece.first_unit * kUnitBytes, piece.units * kUnitBytes};
  return units.intersection({0, file_bytes_});
}

std::vector<ContentMap::Piece>::const_iterator ContentMap::find(std::uint64_t offset) const {
  return std::ranges::partition_point(pieces_, [offset](const Piece& piece) {
    return (piece.first_unit + std::uint64_t{piece.units}) * kUnitBytes <= offset;
  });
}

std::vector<ContentMap::Piece>::iterator ContentMap::find(std::uint64_t offset) {
  return pieces_.begin() + std::distance(pieces_.cbegin(), std::as_const(*this).find(offset));
}

bool ContentMap::joinable(const Piece& left, const Piece& right) const {
  constexpr std::uint64_t kUnitsInCell = kCellBytes / kUnitBytes;
  return left.first_unit + left.units == right.first_unit && left.verified == right.verified &&
         left.first_unit / kUnitsInCell == right.first_unit / kUnitsInCell;
}

void ContentMap::insert(const Piece& piece) {
  auto at = find(piece.first_unit * kUnitBytes);
  unverified_ += piece.verified ? 0 : 1;
  at = pieces_.insert(at, piece);
  const auto join_with_next = [this](std::vector<Piece>::iterator left) {
    const auto right = std::next(left);
    left->checksum = crc32c_combine(left->checksum, right->checksum, range_of(*right).length);
    left->units = static_cast<std::uint16_t>(left->units + right->units);
    unverified_ -= left->verified ? 0 : 1;
    pieces_.erase(right);
  };
  if (std::next(at) != pieces_.end() && joinable(*at, *std::next(at))) {
    join_with_next(at);
  }
  if (at != pieces_.begin() && joinable(*std::prev(at), *at)) {
    join_with_next(std::prev(at));
  }
}

void ContentMap::add(ByteRange run, std::span<const std::uint32_t> checksums, bool verified) {
  CHECK(checksums.size() == cells_of(run) && run.end() <= file_bytes_);
  present_.add(run);
  std::size_t index = 0;
  for (std::uint64_t at = run.offset; at < run.end();) {
    const std::uint64_t end = std::min(run.end(), (at / kCellBytes + 1) * kCellBytes);
    Piece piece;
    piece.first_unit = static_cast<std::uint32_t>(at / kUnitBytes);
    piece.units = static_cast<std::uint16_t>((end - at + kUnitBytes - 1) / kUnitBytes);
    piece.verified = verified;
    piece.checksum = checksums[index++];
    insert(piece);
    at = end;
  }
}

void ContentMap::remove(ByteRange range) {
  const auto begin = find(range.offset);
  auto end = begin;
  while (end != pieces_.end() && range_of(*end).offset < range.end()) {
    present_.remove(range_of(*end));
    unverified_ -= end->verified ? 0 : 1;
    ++end;
  }
  pieces_.erase(begin, end);
}

void ContentMap::clear() {
  present_.clear();
  pieces_.clear();
  unverified_ = 0;
}

void ContentMap::mark_verified(ByteRange piece) {
  for (auto at = find(piece.offset); at != pieces_.end(); ++at) {
    const ByteRange range = range_of(*at);
    if (!piece.contains(range)) {
      return;
    }
    unverified_ -= at->verified ? 0 : 1;
    at->verified = true;
  }
}

void ContentMap::doubt() {
  for (Piece& piece : pieces_) {
    piece.verified = false;
  }
  unverified_ = pieces_.size();
}

bool ContentMap::has_unverified(ByteRange range) const {
  if (unverified_ == 0) {
    return false;
  }
  for (auto at = find(range.offset); at != pieces_.end(); ++at) {
    if (range_of(*at).offset >= range.end()) {
      return false;
    }
    if (!at->verified) {
      return true;
    }
  }
  return false;
}

std::vector<MapPiece> ContentMap::pieces_in(ByteRange range) const {
  std::vector<MapPiece> found;
  for (auto at = find(range.offset); at != pieces_.end(); ++at) {
    const ByteRange here = range_of(*at);
    if (here.offset >= range.end()) {
      break;
    }
    found.push_back({here, at->checksum});
  }
  return found;
}

std::vector<MapPiece> ContentMap::unverified_in(ByteRange range) const {
  std::vector<MapPiece> found;
  if (unverified_ == 0) {
    return found;
  }
  for (auto at = find(range.offset); at != pieces_.end() && range_of(*at).offset < range.end();
       ++at) {
    if (!at->verified) {
      found.push_back({range_of(*at), at->checksum});
    }
  }
  return found;
}

std::vector<MapPiece> ContentMap::pieces() const {
  std::vector<MapPiece> all;
  all.reserve(pieces_.size());
  for (const Piece& piece : pieces_) {
    all.push_back({range_of(piece), piece.checksum});
  }
  return all;
}

}  // namespace larder::cachefiles
