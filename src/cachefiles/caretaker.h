// Caretaker: what is kept for whoever cares for a cache from outside, at the end of a cache
// channel.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace larder::cachefiles {

// Objects that came out of use, and so might be culled now.
struct Released {
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;
};

// Threads: any. Life: the cache's.
class Caretaker {
 public:
  Caretaker() = default;
  Caretaker(const Caretaker&) = delete;
  Caretaker& operator=(const Caretaker&) = delete;
  ~Caretaker() = default;

  // From now on somebody cares: `changed` is called, from any thread, when there may be news, and
  // must not wait. It may be called for the last time after another has taken its place. Empty: the
  // cache cares for itself.
  void set(std::move_only_function<void()> changed) EXCLUDES(mutex_);

  // False: the cache cares for itself.
  [[nodiscard]] bool present() const { return present_; }

  void tell() EXCLUDES(mutex_);

  void note_released(std::uint64_t bytes) {
    released_bytes_.fetch_add(bytes);
    released_objects_.fetch_add(1);
  }

  [[nodiscard]] std::uint64_t released_objects() const { return released_objects_; }

  // Since it was last called.
  [[nodiscard]] Released take_released() {
    return {released_objects_.exchange(0), released_bytes_.exchange(0)};
  }

 private:
  std::atomic<bool> present_{false};
  std::atomic<std::uint64_t> released_objects_{0};
  std::atomic<std::uint64_t> released_bytes_{0};
  Mutex mutex_{LockRank::kStats};
  std::shared_ptr<std::move_only_function<void()>> changed_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
