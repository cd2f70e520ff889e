// Gate: stop new work, wait for the old. The shape of withdraw, unmount and exit.
#pragma once

#include <cstddef>
#include <utility>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder {

// Threads: any. Life: must be closed and empty when destroyed, or never entered.
class Gate {
 public:
  // Held by whoever is inside; movable; leaves when destroyed.
  class Pass {
   public:
    Pass() = default;

    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}

    Pass& operator=(Pass&& other) noexcept {
      leave();
      gate_ = std::exchange(other.gate_, nullptr);
      return *this;
    }

    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

    ~Pass() { leave(); }

    // False: the gate was closed.
    explicit operator bool() const { return gate_ != nullptr; }

    void leave() {
      if (gate_ != nullptr) {
        std::exchange(gate_, nullptr)->leave();
      }
    }

   private:
    friend class Gate;

    explicit Pass(Gate* gate) : gate_(gate) {}

    Gate* gate_ = nullptr;
  };

  [[nodiscard]] Pass enter() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    if (closed_) {
      return {};
    }
    ++inside_;
    return Pass(this);
  }

  // No one enters any more. Does not wait.
  void close() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    closed_ = true;
  }

  // Closes and waits until everyone has left.
  void close_and_wait() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    closed_ = true;
    while (inside_ > 0) {
      empty_.wait(mutex_);
    }
  }

 private:
  void leave() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    // Notified under the lock: who waits may destroy the gate as soon as it can take it.
    if (--inside_ == 0) {
      empty_.notify_all();
    }
  }

  CondVar empty_;
  Mutex mutex_{LockRank::kGate};
  std::size_t inside_ GUARDED_BY(mutex_) = 0;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder
