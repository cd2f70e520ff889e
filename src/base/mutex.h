// Mutex, MutexLock, CondVar: std's, with a rank, a name and annotations.
//
// A debug build aborts when a thread takes a lock out of the order of lock_ranks.def, or the same
// lock twice. No lock is held across I/O, a callback or a wait (but a CondVar's own).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "base/thread_annotations.h"

namespace larder {

enum class LockRank : std::uint8_t {
#define LOCK_RANK(enumerator, name, what) enumerator,
#include "base/lock_ranks.def"
#undef LOCK_RANK
};

class CAPABILITY("mutex") Mutex {
 public:
  explicit Mutex(LockRank rank) : rank_(rank) {}

  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  ~Mutex() = default;

  void lock() ACQUIRE();
  void unlock() RELEASE();

 private:
  friend class CondVar;

  std::mutex mutex_;
  const LockRank rank_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }

  ~MutexLock() RELEASE() { mutex_.unlock(); }

  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  // Spurious wake-ups happen: wait in a loop over the condition.
  void wait(Mutex& mutex) REQUIRES(mutex);
  // False when `deadline` passed first.
  [[nodiscard]] bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      REQUIRES(mutex);

  void notify_one() { condition_.notify_one(); }

  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace larder
