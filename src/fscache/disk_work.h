// DiskWork: runs blocking calls of a cache's backend on the cache's own threads, with a deadline.
//
// A disk that hangs must not hang a mount: an operation that is not done in time is answered with
// kTimedOut, its thread is left to the disk, and the owner is told so that it suspends the cache
// until the disk answers again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>

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
  };

  // `hangs(true)` when an operation passed its deadline, `hangs(false)` when none does any more.
  DiskWork(Executor& executor, const std::string& name, const Limits& limits,
           std::move_only_function<void(bool)> hangs);
  ~DiskWork();
  DiskWork(const DiskWork&) = delete;
  DiskWork& operator=(const DiskWork&) = delete;

  // Runs `operation` on the pool, then `outcome` with its result there; or, when the deadline came
  // first, `outcome` with kTimedOut on the timer thread. `outcome` runs exactly once.
  void run(Operation operation, Outcome outcome);
  // The same for work that may be left out: false, and nothing is taken, when the queue is full.
  [[nodiscard]] bool try_run(Operation& operation, Outcome& outcome);
  // No deadline and no answer: closing files, committing objects.
  void run_detached(Task task);

  // An operation has passed its deadline and has not ended.
  [[nodiscard]] bool hangs() const { return hanging_.load(std::memory_order_relaxed); }

 private:
  struct Entry;

  std::shared_ptr<Entry> enlist(Operation operation, Outcome outcome);
  void execute(const std::shared_ptr<Entry>& entry);
  void finish(const std::shared_ptr<Entry>& entry, Result<> result);
  void arm_watch() REQUIRES(mutex_);
  void watch();

  Executor& executor_;
  const Limits limits_;
  std::move_only_function<void(bool)> hangs_;
  Mutex mutex_{LockRank::kDiskWork};
  std::list<std::shared_ptr<Entry>> entries_ GUARDED_BY(mutex_);  // in order of their start
  std::size_t overdue_ GUARDED_BY(mutex_) = 0;
  std::atomic<bool> hanging_{false};  // overdue_ > 0, for whoever has no time for a lock
  bool watching_ GUARDED_BY(mutex_) = false;
  std::unique_ptr<Pool> pool_;  // last: its threads use the members above
};

}  // namespace larder::fscache
