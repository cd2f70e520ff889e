#include "base/range_set.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

#include "base/byte_range.h"

namespace larder {

void RangeSet::add(ByteRange range) {
  if (range.empty()) {
    return;
  }
  std::uint64_t begin = range.offset;
  std::uint64_t end = range.end();
  auto next = ranges_.upper_bound(begin);
  if (next != ranges_.begin()) {
    const auto before = std::prev(next);
    if (before->second >= begin) {  // overlaps or touches
      begin = before->first;
      end = std::max(end, before->second);
      next = ranges_.erase(before);
    }
  }
  while (next != ranges_.end() && next->first <= end) {
    end = std::max(end, next->second);
    next = ranges_.erase(next);
  }
  ranges_.emplace_hint(next, begin, end);
}

void RangeSet::remove(ByteRange range) {
  if (range.empty()) {
    return;
  }
  auto at = ranges_.upper_bound(range.offset);
  if (at != ranges_.begin()) {
    --at;
  }
  while (at != ranges_.end() && at->first < range.end()) {
    const std::uint64_t begin = at->first;
    const std::uint64_t end = at->second;
    if (end <= range.offset) {
      ++at;
      continue;
    }
    at = ranges_.erase(at);
    if (begin < range.offset) {
      ranges_.emplace(begin, range.offset);
    }
    if (end > range.end()) {
      ranges_.emplace(range.end(), end);
    }
  }
}

bool RangeSet::contains(ByteRange range) const {
  if (range.empty()) {
    return true;
  }
  const auto next = ranges_.upper_bound(range.offset);
  return next != ranges_.begin() && std::prev(next)->second >= range.end();
}

std::uint64_t RangeSet::total_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [begin, end] : ranges_) {
    total += end - begin;
  }
  return total;
}

std::optional<ByteRange> RangeSet::first_at_or_after(std::uint64_t offset) const {
  const auto next = ranges_.upper_bound(offset);
  if (next != ranges_.begin() && std::prev(next)->second > offset) {
    return ByteRange::between(offset, std::prev(next)->second);
  }
  if (next == ranges_.end()) {
    return std::nullopt;
  }
  return ByteRange::between(next->first, next->second);
}

std::vector<ByteRange> RangeSet::missing_in(ByteRange within) const {
  std::vector<ByteRange> missing;
  std::uint64_t at = within.offset;
  while (at < within.end()) {
    const std::optional<ByteRange> present = first_at_or_after(at);
    const std::uint64_t stop = present ? std::min(present->offset, within.end()) : within.end();
    if (stop > at) {
      missing.push_back(ByteRange::between(at, stop));
    }
    if (!present) {
      break;
    }
    at = present->end();
  }
  return missing;
}

std::vector<ByteRange> RangeSet::ranges() const {
  std::vector<ByteRange> all;
  all.reserve(ranges_.size());
  for (const auto& [begin, end] : ranges_) {
    all.push_back(ByteRange::between(begin, end));
  }
  return all;
}

}  // namespace larder
