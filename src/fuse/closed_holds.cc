#include "fuse/closed_holds.h"

#include <algorithm>
#include <cstddef>
#include <list>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "netfs/held_versions.h"

namespace larder::fuse {

void ClosedHolds::add(netfs::PassthroughHoldRef hold) {
  if (hold == nullptr) {
    return;
  }
  const Hold shared = std::move(hold);
  shared->note_closed();
  Hold before;
  {
    const MutexLock lock(mutex_);
    if (closed_) {
      return;
    }
    before = put_in_place(shared);
    arm_timer();
  }
  if (before == nullptr) {
    look({shared});
  }
}

// Returns what was there of the same version and node. It is the older one that goes: the disk may
// have been asked just before this one was closed, and what it answers counts for the older one.
ClosedHolds::Hold ClosedHolds::put_in_place(const Hold& hold) {
  const auto same = std::ranges::find_if(holds_, [&hold](const Hold& other) {
    return other->version() == hold->version() && other->holder() == hold->holder();
  });
  if (same != holds_.end()) {
    return std::exchange(*same, hold);
  }
  holds_.push_back(hold);
  return nullptr;
}

void ClosedHolds::close() {
  std::list<Hold> dropped;
  const MutexLock lock(mutex_);
  closed_ = true;
  dropped.swap(holds_);
}

void ClosedHolds::look(Holds holds) {
  const Hold any = holds.front();
  any->look_for_readers([weak = weak_from_this(), holds = std::move(holds)](bool found) {
    const auto self = weak.lock();
    if (self != nullptr && !found) {
      self->found_none(holds);
    }
  });
}

void ClosedHolds::look_at_all() {
  std::vector<Holds> versions;
  {
    const MutexLock lock(mutex_);
    timer_set_ = false;
    if (holds_.empty()) {
      return;
    }
    versions = by_version();
    arm_timer();
  }
  for (Holds& holds : versions) {
    look(std::move(holds));
  }
}

// In the order in which they came.
std::vector<ClosedHolds::Holds> ClosedHolds::by_version() const {
  std::vector<Holds> versions;
  std::unordered_map<const void*, std::size_t> places;
  for (const Hold& hold : holds_) {
    const auto [place, is_new] = places.try_emplace(hold->version(), versions.size());
    if (is_new) {
      versions.emplace_back();
    }
    versions[place->second].push_back(hold);
  }
  return versions;
}

void ClosedHolds::found_none(const Holds& holds) {
  const MutexLock lock(mutex_);
  for (const Hold& hold : holds) {
    holds_.remove(hold);  // the caller has it too: it is not destroyed here
  }
}

void ClosedHolds::arm_timer() {
  if (std::exchange(timer_set_, true)) {
    return;
  }
  executor_.timers().schedule(kLookAgain, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->look_at_all();
    }
  });
}

}  // namespace larder::fuse
