// A set of bytes kept as disjoint, non-adjacent half-open ranges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/byte_range.h"

namespace larder {

// Cost: logarithmic in the number of ranges, plus the ranges touched.
// Threads: external synchronisation.
class RangeSet {
 public:
  void add(ByteRange range);
  void remove(ByteRange range);

  void clear() { ranges_.clear(); }

  [[nodiscard]] bool contains(ByteRange range) const;

  [[nodiscard]] bool empty() const { return ranges_.empty(); }

  // The ranges that it is made of.
  [[nodiscard]] std::size_t size() const { return ranges_.size(); }

  // The bytes in it.
  [[nodiscard]] std::uint64_t total_bytes() const;

  // The first range of it that has bytes at or after `offset`, cut to begin there.
  [[nodiscard]] std::optional<ByteRange> first_at_or_after(std::uint64_t offset) const;
  // The bytes of `within` that are not in the set, in order.
  [[nodiscard]] std::vector<ByteRange> missing_in(ByteRange within) const;
  [[nodiscard]] std::vector<ByteRange> ranges() const;

  bool operator==(const RangeSet&) const = default;

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // begin -> end; disjoint, not adjacent
};

}  // namespace larder
