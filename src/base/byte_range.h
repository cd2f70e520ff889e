// A half-open range of bytes of a file: [offset, offset + length).
#pragma once

#include <algorithm>
#include <cstdint>

namespace larder {

struct ByteRange {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  static constexpr ByteRange between(std::uint64_t begin, std::uint64_t end) {
    return {begin, end > begin ? end - begin : 0};
  }

  [[nodiscard]] constexpr std::uint64_t end() const { return offset + length; }

  [[nodiscard]] constexpr bool empty() const { return length == 0; }

  [[nodiscard]] constexpr bool contains(ByteRange other) const {
    return other.empty() || (offset <= other.offset && other.end() <= end());
  }

  [[nodiscard]] constexpr bool overlaps(ByteRange other) const {
    return offset < other.end() && other.offset < end();
  }

  // What both have; empty at this one's offset when they have nothing.
  [[nodiscard]] constexpr ByteRange intersection(ByteRange other) const {
    const std::uint64_t begin = std::max(offset, other.offset);
    const std::uint64_t stop = std::min(end(), other.end());
    return stop > begin ? between(begin, stop) : ByteRange{offset, 0};
  }

  // Grown to whole units of `unit` bytes, a power of two.
  [[nodiscard]] constexpr ByteRange rounded_out(std::uint64_t unit) const {
    return between(offset & ~(unit - 1), (end() + unit - 1) & ~(unit - 1));
  }

  // Shrunk to the whole units of `unit` bytes, a power of two, that lie inside.
  [[nodiscard]] constexpr ByteRange rounded_in(std::uint64_t unit) const {
    return between((offset + unit - 1) & ~(unit - 1), end() & ~(unit - 1));
  }

  constexpr bool operator==(const ByteRange&) const = default;
};

}  // namespace larder
