// DiskWork: runs blocking calls of a cache's backend on the cache's own threads, with a deadline.
//
// A disk that hangs must not hang a mount: an operation that is not done in time is answered with
// kTimedOut, its thread is left to the disk, and the owner is told so that it suspends the cache
// until the disk answers again. In time is counted from when the operation was asked for: nobody
// waits for longer. That the disk hangs is counted from when it began: a disk that has much to do
// is slow, and answers.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"

namespace larder::fscache {

// Threads: any. Life: owned by the cache; the destructor waits for everything that runs, so it must
// not run on one of its own threads.
class DiskWork : public std::enable_shared_from_this<DiskWork> {
 public:
  using Operation = std::move_only_function<Result<>()>;
  using Outcome = std::move_only_function<void(Result<>)>;

  struct Limits {
    unsigned threads = 8;
    std::size_t most_queued = 4096;  // of try_run
    Duration deadline = std::chrono::seconds(5);
    // While something has waited for so long, try_run() adds nothing.
    Duration patience = std::chrono::seconds(1);
  };

  // After each change of what hangs() says, on whatever thread made it. Threads overtake each
  // other: what counts is what hangs() says when it is asked under the owner's lock.
  using OnChange = std::function<void(const DiskWork&)>;

  DiskWork(Executor& executor, const std::string& name, const Limits& limits, OnChange on_change);
  ~DiskWork();
  DiskWork(const DiskWork&) = delete;
  DiskWork& operator=(const DiskWork&) = delete;

  // Runs `operation` on the pool, then `outcome` with its result there; or, when the deadline came
  // first, `outcome` with kTimedOut on the timer thread. `outcome` runs exactly once.
  void run(Operation operation, Outcome outcome);
  // The same for work that may be left out: it lets all that run() was given go first. False, and
  // nothing is taken, when the queue is full or something has waited in it for long.
  [[nodiscard]] bool try_run(Operation& operation, Outcome& outcome);
  // No deadline and no answer: closing files, committing objects.
  void run_detached(Task task);

  // An operation has gone on for longer than the deadline; or something has waited for as long, and
  // nothing got its turn in that time (what is detached may hang, too).
  [[nodiscard]] bool hangs() const { return hanging_.load(std::memory_order_relaxed); }

 private:
  struct Entry;
  using EntryRef = std::shared_ptr<Entry>;
  using Entries = std::list<EntryRef>;

  void enlist(const EntryRef& entry, Entries& waiting) REQUIRES(mutex_);
  void execute(const EntryRef& posted);
  [[nodiscard]] EntryRef begin(const EntryRef& posted) EXCLUDES(mutex_);
  [[nodiscard]] EntryRef next(const EntryRef& posted) REQUIRES(mutex_);
  void finish(const EntryRef& entry, Result<> result) EXCLUDES(mutex_);
  [[nodiscard]] bool take_turn(MonotonicTime now) REQUIRES(mutex_);
  [[nodiscard]] bool one_waits_since(MonotonicTime time) const REQUIRES(mutex_);
  [[nodiscard]] bool update_hanging() REQUIRES(mutex_);
  void tell(bool changed) EXCLUDES(mutex_);
  void arm_watch() REQUIRES(mutex_);
  void watch() EXCLUDES(mutex_);
  [[nodiscard]] std::vector<Outcome> take_late(MonotonicTime limit) REQUIRES(mutex_);

  Executor& executor_;
  const Limits limits_;
  OnChange on_change_;
  Mutex mutex_{LockRank::kDiskWork};
  // Each operation is in one of them: those that wait in order of their coming, what may be left
  // out by itself, and those that run in order of their beginning.
  Entries needed_ GUARDED_BY(mutex_);
  Entries optional_ GUARDED_BY(mutex_);
  Entries running_ GUARDED_BY(mutex_);
  std::size_t overdue_ GUARDED_BY(mutex_) = 0;    // of those that run
  MonotonicTime last_turn_ GUARDED_BY(mutex_){};  // when a thread last began something
  bool stuck_ GUARDED_BY(mutex_) = false;         // something waits, and nothing gets its turn
  std::atomic<bool> hanging_{false};  // either of both, for whoever has no time for a lock
  bool watching_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<Pool> pool_;  // last: its threads use the members above
};

}  // namespace larder::fscache
