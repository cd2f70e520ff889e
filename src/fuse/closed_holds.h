// ClosedHolds: holds for passthrough of files that nobody has open any more.
//
// A mapping reads the backing file on after the descriptor that made it was closed, and nobody is
// told when it goes. So the cache's disk is asked now and then whether somebody reads there still,
// once for all that hold one version. Of those by one node the last is kept: while somebody has a
// file mapped, others may open and close it any number of times.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <vector>

#include "base/executor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/held_versions.h"

namespace larder::fuse {

// Threads: any. Life: close() before the share is shut down.
class ClosedHolds : public std::enable_shared_from_this<ClosedHolds> {
 public:
  static constexpr std::chrono::seconds kLookAgain{5};

  explicit ClosedHolds(Executor& executor) : executor_(executor) {}

  // Keeps it as long as somebody reads. Null is nothing.
  void add(netfs::PassthroughHoldRef hold) EXCLUDES(mutex_);
  // Lets go of all, and of what comes later.
  void close() EXCLUDES(mutex_);

 private:
  using Hold = std::shared_ptr<netfs::PassthroughHold>;

  using Holds = std::vector<Hold>;  // of one version

  [[nodiscard]] Hold put_in_place(const Hold& hold) REQUIRES(mutex_);
  void look(Holds holds) EXCLUDES(mutex_);
  void look_at_all() EXCLUDES(mutex_);
  [[nodiscard]] std::vector<Holds> by_version() const REQUIRES(mutex_);
  void found_none(const Holds& holds) EXCLUDES(mutex_);
  void arm_timer() REQUIRES(mutex_);

  Executor& executor_;
  Mutex mutex_{LockRank::kNode};
  std::list<Hold> holds_ GUARDED_BY(mutex_);
  bool timer_set_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::fuse
