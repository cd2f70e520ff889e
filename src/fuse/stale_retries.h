// StaleRetries: who was just told ESTALE for which node.
//
// open(2) of a node that serves an older version is answered ESTALE once: the kernel looks the name
// up again and opens the newer node. A second OPEN of the same node by the same thread right behind
// it, without a LOOKUP between, can only be a reopen of /proc/PID/fd: that gets the older version.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::fuse {

// Threads: any.
class StaleRetries {
 public:
  explicit StaleRetries(const Clock& clock) : clock_(clock) {}

  // Thread `pid` is about to be told ESTALE for an OPEN of the node. False: it was told so a moment
  // ago, serve it.
  [[nodiscard]] bool may_answer_stale(std::uint32_t pid, std::uint64_t nodeid) EXCLUDES(mutex_) {
    const MonotonicTime now = clock_.now();
    const MutexLock lock(mutex_);
    const auto found = told_.find(pid);
    if (found != told_.end() && found->second.nodeid == nodeid && found->second.until >= now) {
      told_.erase(found);
      return false;
    }
    if (told_.size() >= kMostEntries) {
      told_.clear();
    }
    told_.insert_or_assign(pid, Told{nodeid, now + std::chrono::seconds(1)});
    any_ = true;
    return true;
  }

  // The thread did something else than open a node or ask for its attributes.
  void note_other_request(std::uint32_t pid) EXCLUDES(mutex_) {
    if (!any_.load(std::memory_order_relaxed)) {
      return;
    }
    const MutexLock lock(mutex_);
    told_.erase(pid);
    any_ = !told_.empty();
  }

 private:
  static constexpr std::size_t kMostEntries = 1024;

  struct Told {
    std::uint64_t nodeid = 0;
    MonotonicTime until;
  };

  const Clock& clock_;
  std::atomic<bool> any_{false};
  Mutex mutex_{LockRank::kStats};
  std::unordered_map<std::uint32_t, Told> told_ GUARDED_BY(mutex_);
};

}  // namespace larder::fuse
