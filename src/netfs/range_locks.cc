#include "netfs/range_locks.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>

#include "base/byte_range.h"

namespace larder::netfs {

void RangeLocks::for_each_conflict(const FileLock& wanted,
                                   const std::function<bool(const FileLock&)>& visit) const {
  for (const Holder& holder : holders_) {
    if (holder.owner == wanted.owner) {
      continue;
    }
    for (auto at = first_behind(holder.ranges, wanted.range.offset);
         at != holder.ranges.end() && at->second.range.overlaps(wanted.range); ++at) {
      const bool both_shared =
          wanted.mode == LockMode::kShared && at->second.mode == LockMode::kShared;
      if (!both_shared && !visit(at->second)) {
        return;
      }
    }
  }
}

const FileLock* RangeLocks::find_conflict(const FileLock& wanted) const {
  const FileLock* found = nullptr;
  for_each_conflict(wanted, [&found](const FileLock& held) {
    found = &held;
    return false;
  });
  return found;
}

const FileLock* RangeLocks::find_own(LockOwner owner, ByteRange range) const {
  const Ranges* const ranges = ranges_of(owner);
  if (ranges == nullptr) {
    return nullptr;
  }
  const auto at = first_behind(*ranges, range.offset);
  return at != ranges->end() && at->second.range.overlaps(range) ? &at->second : nullptr;
}

void RangeLocks::set(const FileLock& lock) {
  auto found = by_owner_.find(lock.owner);
  if (found == by_owner_.end()) {
    holders_.push_back({lock.owner, {}});
    found = by_owner_.emplace(lock.owner, std::prev(holders_.end())).first;
  }
  Ranges& ranges = found->second->ranges;
  cut(ranges, lock.range);
  FileLock joined = lock;
  join_neighbours(ranges, joined);
  ranges.emplace(joined.range.offset, joined);
  ++size_;
}

void RangeLocks::clear(LockOwner owner, ByteRange range) {
  const auto found = by_owner_.find(owner);
  if (found == by_owner_.end()) {
    return;
  }
  cut(found->second->ranges, range);
  if (found->second->ranges.empty()) {
    drop(found->second);
  }
}

void RangeLocks::clear_owner(LockOwner owner) {
  const auto found = by_owner_.find(owner);
  if (found != by_owner_.end()) {
    drop(found->second);
  }
}

void RangeLocks::clear_open(std::uint64_t open) {
  for (auto holder = holders_.begin(); holder != holders_.end();) {
    for (auto at = holder->ranges.begin(); at != holder->ranges.end();) {
      const bool gone = at->second.open == open;
      size_ -= gone ? 1 : 0;
      at = gone ? holder->ranges.erase(at) : std::next(at);
    }
    holder = holder->ranges.empty() ? drop(holder) : std::next(holder);
  }
}

bool RangeLocks::has_open(std::uint64_t open) const {
  for (const Holder& holder : holders_) {
    for (const auto& [begin, lock] : holder.ranges) {
      if (lock.open == open) {
        return true;
      }
    }
  }
  return false;
}

bool RangeLocks::would_split(LockOwner owner, ByteRange range) const {
  const FileLock* const own = find_own(owner, range);
  return own != nullptr && own->range.offset < range.offset && range.end() < own->range.end();
}

RangeLocks::Ranges::const_iterator RangeLocks::first_behind(const Ranges& ranges,
                                                            std::uint64_t offset) {
  auto at = ranges.upper_bound(offset);
  if (at != ranges.begin() && std::prev(at)->second.range.end() > offset) {
    --at;
  }
  return at;
}

const RangeLocks::Ranges* RangeLocks::ranges_of(LockOwner owner) const {
  const auto found = by_owner_.find(owner);
  return found == by_owner_.end() ? nullptr : &found->second->ranges;
}

// What reaches beyond the range at either side stays there.
void RangeLocks::cut(Ranges& ranges, ByteRange range) {
  auto at = first_behind(ranges, range.offset);
  while (at != ranges.end() && at->second.range.overlaps(range)) {
    const FileLock whole = at->second;
    at = ranges.erase(at);
    --size_;
    FileLock before = whole;
    before.range = ByteRange::between(whole.range.offset, range.offset);
    FileLock after = whole;
    after.range = ByteRange::between(range.end(), whole.range.end());
    for (const FileLock& rest : {before, after}) {
      if (!rest.range.empty()) {
        ranges.emplace(rest.range.offset, rest);
        ++size_;
      }
    }
  }
}

// Takes what touches the lock at its ends, in its mode, into it.
void RangeLocks::join_neighbours(Ranges& ranges, FileLock& lock) {
  const auto take = [&](Ranges::const_iterator at) {
    if (at->second.mode == lock.mode) {
      lock.range = ByteRange::between(std::min(lock.range.offset, at->second.range.offset),
                                      std::max(lock.range.end(), at->second.range.end()));
      ranges.erase(at);
      --size_;
    }
  };
  if (const auto next = ranges.find(lock.range.end()); next != ranges.end()) {
    take(next);
  }
  const auto behind = ranges.lower_bound(lock.range.offset);
  if (behind != ranges.begin() && std::prev(behind)->second.range.end() == lock.range.offset) {
    take(std::prev(behind));
  }
}

RangeLocks::Holders::iterator RangeLocks::drop(Holders::iterator holder) {
  size_ -= holder->ranges.size();
  by_owner_.erase(holder->owner);
  return holders_.erase(holder);
}

}  // namespace larder::netfs
