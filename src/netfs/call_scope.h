// CallScope: what a request of the kernel waits for right now, so that an interrupt can end it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"
#include "netfs/call_journal.h"

namespace larder::netfs {

// A request waits for one thing after the other. A call may be answered, and the next one begun, on
// another thread before its start returns with what is needed to cancel it: the ticket, taken
// before the start, tells that this comes too late.
//
// Threads: any. Life: shared by the request and whatever works for it.
class CallScope {
 public:
  // The order of a request's waits.
  using Ticket = std::uint64_t;

  // Before a call is begun, for the set_cancel() behind it.
  [[nodiscard]] Ticket begin_wait() EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    return ++last_ticket_;
  }

  // From now on cancel() does `how`, which must be harmless when the call has ended already, unless
  // a later wait said how it is cancelled. When cancel() came before, `how` runs at once.
  void set_cancel(Ticket ticket, std::move_only_function<void()> how) EXCLUDES(mutex_) {
    {
      const MutexLock lock(mutex_);
      if (ticket < how_ticket_) {
        return;
      }
      how_ticket_ = ticket;
      if (!cancelled_) {
        std::swap(how_, how);  // the old one dies behind the lock: it may own anything
        return;
      }
    }
    how();
  }

  // For a wait whose way to be cancelled is known before it begins.
  void set_cancel(std::move_only_function<void()> how) EXCLUDES(mutex_) {
    set_cancel(begin_wait(), std::move(how));
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
  Ticket last_ticket_ GUARDED_BY(mutex_) = 0;
  Ticket how_ticket_ GUARDED_BY(mutex_) = 0;  // of how_
  std::move_only_function<void()> how_ GUARDED_BY(mutex_);
  bool cancelled_ GUARDED_BY(mutex_) = false;
};

// In whose name a request is made, and how to end it. Cheap to copy.
struct Caller {
  CredentialRef credential;
  std::shared_ptr<CallScope> scope;
  CallJournalRef journal = nullptr;  // of a change that must not happen twice
};

// Whoever asks the server for the change itself asks so: it is noted before.
[[nodiscard]] inline Asker ask_as(const Caller& caller) {
  if (caller.journal == nullptr) {
    return {caller.credential};
  }
  caller.journal->note_sent();
  return {caller.credential, caller.journal->earlier().sent};
}

// Around the start of a call to the server, so that an interrupt of the caller's request ends it:
//
//   CallWait wait(caller, adapter);
//   wait.on(adapter.start_getattr(...));
//
// Life: on the stack; the adapter outlives the request's last interrupt.
class CallWait {
 public:
  CallWait(const Caller& caller, Adapter& adapter)
      : adapter_(adapter),
        scope_(caller.scope),
        ticket_(scope_ == nullptr ? 0 : scope_->begin_wait()) {}

  void on(CallId call) {
    if (scope_ != nullptr) {
      scope_->set_cancel(ticket_, [&adapter = adapter_, call] { adapter.cancel(call); });
    }
  }

 private:
  Adapter& adapter_;
  const std::shared_ptr<CallScope> scope_;
  const CallScope::Ticket ticket_;
};

}  // namespace larder::netfs
