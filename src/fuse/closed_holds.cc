#include "fuse/closed_holds.h"

#include <list>
#include <memory>
#include <utility>

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
  {
    const MutexLock lock(mutex_);
    if (closed_) {
      return;
    }
    holds_.push_back(shared);
  }
  look(shared);
}

void ClosedHolds::close() {
  std::list<Hold> dropped;
  const MutexLock lock(mutex_);
  closed_ = true;
  dropped.swap(holds_);
}

void ClosedHolds::look(const Hold& hold) {
  hold->look_for_readers([weak = weak_from_this(), hold](bool found) {
    const auto self = weak.lock();
    if (self != nullptr && !found) {
      self->found_none(hold);
    }
  });
  const MutexLock lock(mutex_);
  if (timer_set_ || holds_.empty()) {
    return;
  }
  timer_set_ = true;
  executor_.timers().schedule(kLookAgain, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->look_at_all();
    }
  });
}

void ClosedHolds::look_at_all() {
  std::list<Hold> holds;
  {
    const MutexLock lock(mutex_);
    timer_set_ = false;
    holds = holds_;
  }
  for (const Hold& hold : holds) {
    look(hold);
  }
}

void ClosedHolds::found_none(const Hold& hold) {
  const MutexLock lock(mutex_);
  holds_.remove(hold);  // the caller has it too: it is not destroyed here
}

}  // namespace larder::fuse
