// SerialQueue: tasks one after the other, on the threads of a pool that others use too.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include "base/executor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::engine {

// Threads: any. Life: shared with its tasks; `pool` outlives it.
class SerialQueue : public std::enable_shared_from_this<SerialQueue> {
 public:
  explicit SerialQueue(Pool& pool) : pool_(pool) {}

  void post(Task task) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      tasks_.push_back(std::move(task));
      if (std::exchange(running_, true)) {
        return;
      }
    }
    pool_.post([self = shared_from_this()] { self->run_next(); });
  }

 private:
  // One a turn, so that others get the thread in between.
  void run_next() EXCLUDES(mutex_) {
    Task task;
    {
      const MutexLock lock(mutex_);
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
    task = nullptr;
    {
      const MutexLock lock(mutex_);
      if (tasks_.empty()) {
        running_ = false;
        return;
      }
    }
    pool_.post([self = shared_from_this()] { self->run_next(); });
  }

  Pool& pool_;
  Mutex mutex_{LockRank::kQueue};
  std::deque<Task> tasks_ GUARDED_BY(mutex_);
  bool running_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::engine
