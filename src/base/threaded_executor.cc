// The Executor with threads: pools, and one timer thread.
#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/thread_annotations.h"

namespace larder {

namespace {

class ThreadedPool final : public Pool {
 public:
  ThreadedPool(const std::string& name, unsigned threads, std::size_t capacity)
      : capacity_(capacity) {
    for (unsigned i = 0; i < threads; ++i) {
      threads_.emplace_back(threads == 1 ? name : fmt::format("{}-{}", name, i), [this] { run(); });
    }
  }

  ThreadedPool(const ThreadedPool&) = delete;
  ThreadedPool& operator=(const ThreadedPool&) = delete;

  ~ThreadedPool() override {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    threads_.clear();
  }

  bool try_post(Task& task) override EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      if (queue_.size() >= capacity_) {
        return false;
      }
      queue_.push_back(std::move(task));
    }
    wake_.notify_one();
    return true;
  }

  void post(Task task) override EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      queue_.push_back(std::move(task));
    }
    wake_.notify_one();
  }

 private:
  void run() EXCLUDES(mutex_) {
    while (Task task = next()) {
      task();
    }
  }

  // An empty task when the pool stops and nothing is queued.
  Task next() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (queue_.empty()) {
      if (stopping_) {
        return {};
      }
      wake_.wait(mutex_);
    }
    Task task = std::move(queue_.front());
    queue_.pop_front();
    return task;
  }

  const std::size_t capacity_;
  CondVar wake_;
  Mutex mutex_{LockRank::kQueue};
  std::deque<Task> queue_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<Thread> threads_;  // last: they use the members above
};

class ThreadedTimers final : public Timers {
 public:
  explicit ThreadedTimers(const Clock& clock)
      : clock_(clock), thread_("timers", [this] { run(); }) {}

  ThreadedTimers(const ThreadedTimers&) = delete;
  ThreadedTimers& operator=(const ThreadedTimers&) = delete;

  // Tasks that are not due yet are destroyed unrun.
  ~ThreadedTimers() override {
    {
      const MutexLock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  TimerId schedule(Duration delay, Task task) override EXCLUDES(mutex_) {
    const MonotonicTime due = clock_.now() + delay;
    TimerId id = 0;
    bool first = false;
    {
      const MutexLock lock(mutex_);
      id = ++last_id_;
      const auto at = by_time_.emplace(due, Entry{id, std::move(task)});
      by_id_.emplace(id, at);
      first = at == by_time_.begin();
    }
    if (first) {
      wake_.notify_one();
    }
    return id;
  }

  bool cancel(TimerId id) override EXCLUDES(mutex_) {
    Task dropped;  // destroyed after the lock is gone: it may own anything
    const MutexLock lock(mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) {
      return false;
    }
    dropped = std::move(found->second->second.task);
    by_time_.erase(found->second);
    by_id_.erase(found);
    return true;
  }

 private:
  struct Entry {
    TimerId id;
    Task task;
  };

  void run() EXCLUDES(mutex_) {
    while (Task task = next_due()) {
      task();
    }
  }

  Task next_due() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    while (!stopping_) {
      if (by_time_.empty()) {
        wake_.wait(mutex_);
        continue;
      }
      const auto first = by_time_.begin();
      if (first->first > clock_.now()) {
        [[maybe_unused]] const bool woken = wake_.wait_until(mutex_, first->first);
        continue;
      }
      Task task = std::move(first->second.task);
      by_id_.erase(first->second.id);
      by_time_.erase(first);
      return task;
    }
    return {};
  }

  const Clock& clock_;
  CondVar wake_;
  Mutex mutex_{LockRank::kQueue};
  std::multimap<MonotonicTime, Entry> by_time_ GUARDED_BY(mutex_);
  std::unordered_map<TimerId, std::multimap<MonotonicTime, Entry>::iterator> by_id_
      GUARDED_BY(mutex_);
  TimerId last_id_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  Thread thread_;
};

class ThreadedExecutor final : public Executor {
 public:
  std::unique_ptr<Pool> make_pool(std::string name, unsigned threads,
                                  std::size_t capacity) override {
    return std::make_unique<ThreadedPool>(name, threads, capacity);
  }

  Timers& timers() override { return timers_; }

  [[nodiscard]] const Clock& clock() const override { return clock_; }

 private:
  SteadyClock clock_;
  ThreadedTimers timers_{clock_};
};

}  // namespace

std::unique_ptr<Executor> make_threaded_executor() {
  return std::make_unique<ThreadedExecutor>();
}

}  // namespace larder
