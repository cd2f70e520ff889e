// CallScope: what a request of the kernel waits for right now, so that an interrupt can end it.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"

namespace larder::netfs {

// Threads: any. Life: shared by the request and whatever works for it.
class CallScope {
 public:
  // From now on cancel() does `how`, which must be harmless when the call has ended already. When
  // cancel() came before, `how` runs at once.
  void set_cancel(std::move_only_function<void()> how) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      if (!cancelled_) {
        how_ = std::move(how);
        return;
      }
    }
    how();
  }

  void cancel() EXCLUDES(mutex_) {
    std::move_only_function<void()> how;
    {
      const MutexLock lock(mutex_);
      cancelled_ = true;
      how = std::exchange(how_, nullptr);
    }
    if (how) {
      how();
    }
  }

  [[nodiscard]] bool cancelled() const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return cancelled_;
  }

 private:
  mutable Mutex mutex_{LockRank::kStats};
  std::move_only_function<void()> how_ GUARDED_BY(mutex_);
  bool cancelled_ GUARDED_BY(mutex_) = false;
};

// In whose name a request is made, and how to end it. Cheap to copy.
struct Caller {
  CredentialRef credential;
  std::shared_ptr<CallScope> scope;
};

}  // namespace larder::netfs
