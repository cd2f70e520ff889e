#include "fscache/disk_work.h"

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"

namespace larder::fscache {

// One operation under way: it waits, then it runs.
struct DiskWork::Entry {
  Operation operation;
  Outcome outcome;  // taken by whoever answers first
  MonotonicTime asked;
  MonotonicTime begun;  // once it runs
  bool optional = false;
  bool waits = true;
  bool answered = false;
  bool overdue = false;
  Entries::iterator place;
};

DiskWork::DiskWork(Executor& executor, const std::string& name, const Limits& limits,
                   OnChange on_change)
    : executor_(executor),
      limits_(limits),
      on_change_(std::move(on_change)),
      pool_(executor.make_pool(name, limits.threads, limits.most_queued)) {}

DiskWork::~DiskWork() = default;

void DiskWork::run(Operation operation, Outcome outcome) {
  const auto entry = std::make_shared<Entry>();
  entry->operation = std::move(operation);
  entry->outcome = std::move(outcome);
  const MutexLock lock(mutex_);
  enlist(entry, needed_);
  pool_->post([this, entry] { execute(entry); });
}

bool DiskWork::try_run(Operation& operation, Outcome& outcome) {
  const auto entry = std::make_shared<Entry>();
  Task turn = [this, entry] { execute(entry); };
  const MutexLock lock(mutex_);
  if (one_waits_since(executor_.clock().now() - limits_.patience) || !pool_->try_post(turn)) {
    return false;
  }
  entry->operation = std::move(operation);
  entry->outcome = std::move(outcome);
  entry->optional = true;
  enlist(entry, optional_);
  return true;
}

void DiskWork::run_detached(Task task) {
  pool_->post([this, task = std::move(task)]() mutable {
    bool changed = false;
    {
      const MutexLock lock(mutex_);
      changed = take_turn(executor_.clock().now());
    }
    tell(changed);
    task();
  });
}

// Under one lock with the posting: as many wait as there are turns in the pool's queue.
void DiskWork::enlist(const EntryRef& entry, Entries& waiting) {
  entry->asked = executor_.clock().now();
  entry->place = waiting.insert(waiting.end(), entry);
  arm_watch();
}

// A turn that `posted` brought into the pool's queue.
void DiskWork::execute(const EntryRef& posted) {
  const EntryRef entry = begin(posted);
  Result<> result = entry->operation();
  entry->operation = nullptr;  // lets go of files and buffers before anyone is told
  finish(entry, std::move(result));
}

DiskWork::EntryRef DiskWork::begin(const EntryRef& posted) {
  EntryRef entry;
  bool changed = false;
  {
    const MutexLock lock(mutex_);
    entry = next(posted);
    entry->waits = false;
    entry->begun = executor_.clock().now();
    running_.splice(running_.end(), entry->optional ? optional_ : needed_, entry->place);
    changed = take_turn(entry->begun);
  }
  tell(changed);
  return entry;
}

// Who waits for an answer goes before what may be left out, and gives it his own turn.
DiskWork::EntryRef DiskWork::next(const EntryRef& posted) {
  const bool needed = !needed_.empty();
  if (posted->waits && posted->optional != needed) {
    return posted;
  }
  return needed ? needed_.front() : optional_.front();
}

void DiskWork::finish(const EntryRef& entry, Result<> result) {
  Outcome outcome;
  bool changed = false;
  {
    const MutexLock lock(mutex_);
    running_.erase(entry->place);
    overdue_ -= entry->overdue ? 1 : 0;
    changed = update_hanging();
    if (!entry->answered) {
      entry->answered = true;
      outcome = std::move(entry->outcome);
    }
  }
  tell(changed);
  if (outcome) {
    outcome(std::move(result));
  }
}

// Something begins: the disk is not stuck. True: hangs() says something else than before.
bool DiskWork::take_turn(MonotonicTime now) {
  last_turn_ = now;
  stuck_ = false;
  return update_hanging();
}

bool DiskWork::one_waits_since(MonotonicTime time) const {
  const auto since = [time](const Entries& waiting) {
    return !waiting.empty() && waiting.front()->asked <= time;
  };
  return since(needed_) || since(optional_);
}

// True: hangs() says something else than before.
bool DiskWork::update_hanging() {
  const bool hanging = overdue_ > 0 || stuck_;
  return hanging_.exchange(hanging) != hanging;
}

void DiskWork::tell(bool changed) {
  if (changed) {
    on_change_(*this);
  }
}

void DiskWork::arm_watch() {
  if (watching_) {
    return;
  }
  watching_ = true;
  executor_.timers().schedule(limits_.deadline / 4, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->watch();
    }
  });
}

void DiskWork::watch() {
  std::vector<Outcome> late;
  bool changed = false;
  {
    const MutexLock lock(mutex_);
    watching_ = false;
    const MonotonicTime limit = executor_.clock().now() - limits_.deadline;
    late = take_late(limit);
    for (const EntryRef& entry : running_) {
      if (!entry->overdue && entry->begun <= limit) {
        entry->overdue = true;
        ++overdue_;
      }
    }
    stuck_ = last_turn_ <= limit && one_waits_since(limit);
    changed = update_hanging();
    if (!needed_.empty() || !optional_.empty() || !running_.empty()) {
      arm_watch();
    }
  }
  tell(changed);
  for (Outcome& outcome : late) {
    outcome(fail(Errc::kTimedOut, "the cache's disk does not answer in time"));
  }
}

// Of those that were asked for by `limit`.
std::vector<DiskWork::Outcome> DiskWork::take_late(MonotonicTime limit) {
  std::vector<Outcome> late;
  for (const Entries* const entries : {&running_, &needed_, &optional_}) {
    for (const EntryRef& entry : *entries) {
      if (entry->asked <= limit && !entry->answered) {
        entry->answered = true;
        late.push_back(std::move(entry->outcome));
      }
    }
  }
  return late;
}

}  // namespace larder::fscache
