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

// One operation under way.
struct DiskWork::Entry {
  Operation operation;
  Outcome outcome;  // taken by whoever answers first
  MonotonicTime started;
  bool answered = false;
  bool overdue = false;
  std::list<std::shared_ptr<Entry>>::iterator place;
};

DiskWork::DiskWork(Executor& executor, const std::string& name, const Limits& limits,
                   std::move_only_function<void(bool)> hangs)
    : executor_(executor),
      limits_(limits),
      hangs_(std::move(hangs)),
      pool_(executor.make_pool(name, limits.threads, limits.most_queued)) {}

DiskWork::~DiskWork() = default;

void DiskWork::run(Operation operation, Outcome outcome) {
  auto entry = enlist(std::move(operation), std::move(outcome));
  pool_->post([this, entry] { execute(entry); });
}

bool DiskWork::try_run(Operation& operation, Outcome& outcome) {
  auto entry = enlist(std::move(operation), std::move(outcome));
  Task task = [this, entry] { execute(entry); };
  if (pool_->try_post(task)) {
    return true;
  }
  {
    const MutexLock lock(mutex_);
    entries_.erase(entry->place);
  }
  operation = std::move(entry->operation);
  outcome = std::move(entry->outcome);
  return false;
}

void DiskWork::run_detached(Task task) {
  pool_->post(std::move(task));
}

std::shared_ptr<DiskWork::Entry> DiskWork::enlist(Operation operation, Outcome outcome) {
  auto entry = std::make_shared<Entry>();
  entry->operation = std::move(operation);
  entry->outcome = std::move(outcome);
  entry->started = executor_.clock().now();
  const MutexLock lock(mutex_);
  entry->place = entries_.insert(entries_.end(), entry);
  arm_watch();
  return entry;
}

void DiskWork::execute(const std::shared_ptr<Entry>& entry) {
  Result<> result = entry->operation();
  entry->operation = nullptr;  // lets go of files and buffers before anyone is told
  finish(entry, std::move(result));
}

void DiskWork::finish(const std::shared_ptr<Entry>& entry, Result<> result) {
  Outcome outcome;
  bool recovered = false;
  {
    const MutexLock lock(mutex_);
    entries_.erase(entry->place);
    if (entry->overdue) {
      recovered = --overdue_ == 0;
      hanging_ = overdue_ > 0;
    }
    if (!entry->answered) {
      entry->answered = true;
      outcome = std::move(entry->outcome);
    }
  }
  if (recovered) {
    hangs_(false);
  }
  if (outcome) {
    outcome(std::move(result));
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
  bool newly_hanging = false;
  {
    const MutexLock lock(mutex_);
    watching_ = false;
    const MonotonicTime now = executor_.clock().now();
    for (const auto& entry : entries_) {
      if (now - entry->started < limits_.deadline) {
        break;  // the others are younger
      }
      if (!entry->overdue) {
        entry->overdue = true;
        newly_hanging = newly_hanging || overdue_ == 0;
        ++overdue_;
        hanging_ = true;
      }
      if (!entry->answered) {
        entry->answered = true;
        late.push_back(std::move(entry->outcome));
      }
    }
    if (!entries_.empty()) {
      arm_watch();
    }
  }
  if (newly_hanging) {
    hangs_(true);
  }
  for (Outcome& outcome : late) {
    outcome(fail(Errc::kTimedOut, "the cache's disk does not answer"));
  }
}

}  // namespace larder::fscache
