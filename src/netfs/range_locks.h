// RangeLocks: the locks of one kind that are held on ranges of one file, as fcntl(2) has them.
//
// An owner never stands in his own way: what he sets replaces what he had on that range, joins what
// he has beside it in the same mode, and splits what reaches further in another one. So his locks
// never overlap. Two owners' locks overlap only where both are shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <unordered_map>

#include "base/byte_range.h"

namespace larder::netfs {

// Numbers that the front end has for whoever locks: a process, or an open file.
using LockOwner = std::uint64_t;

enum class LockMode : std::uint8_t {
  kShared,     // with other shared ones
  kExclusive,  // with none
};

struct FileLock {
  ByteRange range;  // not empty
  LockMode mode = LockMode::kExclusive;
  LockOwner owner = 0;
  std::uint32_t pid = 0;   // told to those who ask what stands in their way
  std::uint64_t open = 0;  // the front end's number of the open that it was set through

  bool operator==(const FileLock&) const = default;
};

// Threads: external synchronisation.
class RangeLocks {
 public:
  RangeLocks() = default;
  RangeLocks(const RangeLocks&) = delete;
  RangeLocks& operator=(const RangeLocks&) = delete;
  ~RangeLocks() = default;

  // Each lock that `wanted` cannot be held beside: by the order in which their owners came, then by
  // range. False of `visit` ends it.
  void for_each_conflict(const FileLock& wanted,
                         const std::function<bool(const FileLock&)>& visit) const;
  // The first of them; null: there is none.
  [[nodiscard]] const FileLock* find_conflict(const FileLock& wanted) const;
  // The owner's first lock that touches the range; null: there is none.
  [[nodiscard]] const FileLock* find_own(LockOwner owner, ByteRange range) const;

  // Requires: it has no conflict.
  void set(const FileLock& lock);
  void clear(LockOwner owner, ByteRange range);
  void clear_owner(LockOwner owner);
  // What was set through one open.
  void clear_open(std::uint64_t open);
  [[nodiscard]] bool has_open(std::uint64_t open) const;
  // Whether clear() would leave more locks than there are: the range is in the midst of one.
  [[nodiscard]] bool would_split(LockOwner owner, ByteRange range) const;

  [[nodiscard]] std::size_t size() const { return size_; }

  [[nodiscard]] bool empty() const { return size_ == 0; }

 private:
  using Ranges = std::map<std::uint64_t, FileLock>;  // by first byte

  struct Holder {
    LockOwner owner = 0;
    Ranges ranges;  // not empty
  };

  using Holders = std::list<Holder>;

  // The first that ends behind `offset`.
  [[nodiscard]] static Ranges::const_iterator first_behind(const Ranges& ranges,
                                                           std::uint64_t offset);
  [[nodiscard]] const Ranges* ranges_of(LockOwner owner) const;
  void cut(Ranges& ranges, ByteRange range);
  void join_neighbours(Ranges& ranges, FileLock& lock);
  Holders::iterator drop(Holders::iterator holder);

  Holders holders_;
  std::unordered_map<LockOwner, Holders::iterator> by_owner_;
  std::size_t size_ = 0;
};

}  // namespace larder::netfs
