// Answer: a `done` that may be called by whoever is first: the work, or an interrupt of its caller.
#pragma once

#include <memory>
#include <utility>

#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"

namespace larder::netfs {

// Threads: any. Life: shared by all who may answer.
template <class T>
class Answer {
 public:
  explicit Answer(Done<T> done) : done_(std::move(done)) {}

  // An interrupt of the scope (null: there is none) answers kCancelled; the work goes on.
  [[nodiscard]] static std::shared_ptr<Answer> for_scope(const std::shared_ptr<CallScope>& scope,
                                                         Done<T> done) {
    auto answer = std::make_shared<Answer>(std::move(done));
    if (scope != nullptr) {
      scope->set_cancel([answer] { answer->give(fail(Errc::kCancelled, "interrupted")); });
    }
    return answer;
  }

  void give(Result<T> result) EXCLUDES(mutex_) {
    Done<T> done;
    {
      const MutexLock lock(mutex_);
      done = std::exchange(done_, nullptr);
    }
    if (done) {
      done(std::move(result));
    }
  }

 private:
  Mutex mutex_{LockRank::kStats};
  Done<T> done_ GUARDED_BY(mutex_);
};

// For work that cannot be called back when its caller's wait is interrupted: `done` gets kCancelled
// then, and what becomes of the work nobody hears. The work itself runs for unheard(caller).
template <class T>
[[nodiscard]] Done<T> interruptible(const Caller& caller, Done<T> done) {
  if (caller.scope == nullptr) {
    return done;
  }
  const auto answer = Answer<T>::for_scope(caller.scope, std::move(done));
  return [answer](Result<T> result) { answer->give(std::move(result)); };
}

[[nodiscard]] inline Caller unheard(const Caller& caller) {
  return {caller.credential, nullptr, caller.journal};
}

}  // namespace larder::netfs
