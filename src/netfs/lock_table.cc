#include "netfs/lock_table.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/range_locks.h"

namespace larder::netfs {

namespace {

Result<> lock_outcome(int error_number) {
  switch (error_number) {
    case 0:
      return {};
    case EINTR:
      return fail(Errc::kCancelled, EINTR, "the wait for a lock was ended");
    case EDEADLK:
      return fail(Errc::kBusy, EDEADLK, "who holds the lock waits for who wants it");
    case ENOLCK:
      return fail(Errc::kNoSpace, ENOLCK, "too many ranges are locked");
    default:
      return fail(Errc::kBusy, error_number, "somebody else holds the lock");
  }
}

bool has_mode_already(const RangeLocks& locks, const FileLock& wanted) {
  const FileLock* const own = locks.find_own(wanted.owner, wanted.range);
  return own != nullptr && own->mode == wanted.mode;
}

std::vector<LockOwner> owners_in_the_way(const RangeLocks& locks, const FileLock& wanted) {
  std::vector<LockOwner> owners;
  locks.for_each_conflict(wanted, [&owners](const FileLock& held) {
    if (owners.empty() || owners.back() != held.owner) {
      owners.push_back(held.owner);
    }
    return true;
  });
  return owners;
}

}  // namespace

LockTable::LockTable(Timers& timers, std::size_t most_locks)
    : timers_(timers), most_locks_(most_locks), gate_(std::make_shared<Gate>()) {}

LockTable::~LockTable() = default;

void LockTable::lock(const InodeRef& inode, const LockOrder& order,
                     const std::shared_ptr<CallScope>& scope, Done<void> done) {
  const CallScope::Ticket ticket = scope == nullptr ? 0 : scope->begin_wait();
  Aftermath after;
  std::optional<WaiterId> waiter;
  {
    const MutexLock lock(mutex_);
    if (shut_down_) {
      after.outcomes.emplace_back(std::move(done), lock_outcome(EINTR));
    } else {
      LockedFile& file = find_or_make(inode);
      waiter = begin(file, order, done, after);
      serve(file, after);
      forget_if_unused(file, after);
    }
  }
  settle(std::move(after));
  if (waiter && scope != nullptr) {
    scope->set_cancel(ticket, [this, id = *waiter] { end_wait(id, EINTR); });
  }
  if (waiter && !order.waits) {
    end_wait_later(*waiter);
  }
}

std::optional<LockTable::WaiterId> LockTable::begin(LockedFile& file, const LockOrder& order,
                                                    Done<void>& done, Aftermath& after) {
  RangeLocks& locks = file.of(order.kind);
  file.closing.erase(order.lock.open);
  if (order.kind == LockKind::kWholeFile && !has_mode_already(locks, order.lock)) {
    // As the kernel does it: who changes the mode and does not get the new one has none.
    locks_ -= locks.size();
    locks.clear_owner(order.lock.owner);
    locks_ += locks.size();
  }
  const int refused = refusal_of(file, order);
  bool waits = refused == EAGAIN && order.waits;
  if (refused == EAGAIN && !order.waits) {
    // All that is in its way may be closed already.
    waits = true;
    locks.for_each_conflict(order.lock, [&](const FileLock& held) {
      waits = file.closing.contains(held.open);
      return waits;
    });
  }
  if (waits) {
    const WaiterId id = ++last_waiter_;
    file.waiters.insert(id);
    if (order.waits && order.kind == LockKind::kRecord) {
      waiting_owners_.emplace(order.lock.owner, id);
    }
    waiters_.emplace(id, Waiter{&file, order, std::move(done)});
    return id;
  }
  if (refused == 0) {
    hold(file, order);
  }
  after.outcomes.emplace_back(std::move(done), lock_outcome(refused));
  return std::nullopt;
}

int LockTable::refusal_of(const LockedFile& file, const LockOrder& order) const {
  if (file.of(order.kind).find_conflict(order.lock) == nullptr) {
    return locks_ >= most_locks_ ? ENOLCK : 0;
  }
  const bool deadlock =
      order.waits && order.kind == LockKind::kRecord && would_deadlock(file, order.lock);
  return deadlock ? EDEADLK : EAGAIN;
}

void LockTable::hold(LockedFile& file, const LockOrder& order) {
  RangeLocks& locks = file.of(order.kind);
  locks_ -= locks.size();
  locks.set(order.lock);
  locks_ += locks.size();
  // Only of a process with several threads.
  file.may_deadlock |=
      order.kind == LockKind::kRecord && waiting_owners_.contains(order.lock.owner);
}

// Until nobody gets anything: who gets a weaker lock than he had lets others in.
void LockTable::serve(LockedFile& file, Aftermath& after) {
  bool again = true;
  while (again) {
    again = false;
    for (auto at = file.waiters.begin(); at != file.waiters.end();) {
      const WaiterId id = *at++;
      const Waiter& waiter = waiters_.at(id);
      if (file.of(waiter.order.kind).find_conflict(waiter.order.lock) == nullptr) {
        Waiter served = remove(id);
        hold(file, served.order);
        after.outcomes.emplace_back(std::move(served.done), lock_outcome(0));
        again = true;
      }
    }
  }
  if (std::exchange(file.may_deadlock, false)) {
    end_deadlocks(file, after);
  }
}

void LockTable::end_deadlocks(LockedFile& file, Aftermath& after) {
  for (auto at = file.waiters.begin(); at != file.waiters.end();) {
    const WaiterId id = *at++;
    const LockOrder& order = waiters_.at(id).order;
    if (order.waits && order.kind == LockKind::kRecord && would_deadlock(file, order.lock)) {
      after.outcomes.emplace_back(remove(id).done, lock_outcome(EDEADLK));
    }
  }
}

// Whether one of those whose locks are in the way waits, through however many others, for a lock of
// who wants this one. The front end's numbers do not tell a process from an open file
// (F_OFD_SETLK): such owners take part, where the kernel would let them wait for ever.
bool LockTable::would_deadlock(const LockedFile& file, const FileLock& wanted) const {
  std::unordered_set<LockOwner> seen;
  std::vector<std::pair<const LockedFile*, const FileLock*>> waits{{&file, &wanted}};
  while (!waits.empty()) {
    const auto [of, lock] = waits.back();
    waits.pop_back();
    for (const LockOwner owner : owners_in_the_way(of->of(LockKind::kRecord), *lock)) {
      if (owner == wanted.owner) {
        return true;
      }
      if (!seen.insert(owner).second) {
        continue;
      }
      const auto [begin, end] = waiting_owners_.equal_range(owner);
      for (auto at = begin; at != end; ++at) {
        const Waiter& waiter = waiters_.at(at->second);
        waits.emplace_back(waiter.file, &waiter.order.lock);
      }
    }
  }
  return false;
}

template <class Change>
void LockTable::change(const Inode& inode, Change change) {
  Aftermath after;
  {
    const MutexLock lock(mutex_);
    LockedFile* const file = find(inode);
    if (file == nullptr) {
      return;
    }
    const bool is_full = locks_ >= most_locks_;
    locks_ -= file->size();
    change(*file, is_full);
    locks_ += file->size();
    serve(*file, after);
    forget_if_unused(*file, after);
  }
  settle(std::move(after));
}

Result<> LockTable::unlock(const Inode& inode, const LockOrder& order) {
  int refused = 0;
  change(inode, [&](LockedFile& file, bool is_full) {
    RangeLocks& locks = file.of(order.kind);
    file.closing.erase(order.lock.open);
    const auto [owner, range] = std::pair(order.lock.owner, order.lock.range);
    if (is_full && locks.would_split(owner, range)) {
      refused = ENOLCK;
    } else {
      locks.clear(owner, range);
    }
  });
  return lock_outcome(refused);
}

std::optional<FileLock> LockTable::find_conflict(const Inode& inode, const FileLock& wanted) const {
  const MutexLock lock(mutex_);
  const LockedFile* const file = find(inode);
  const FileLock* const found =
      file == nullptr ? nullptr : file->of(LockKind::kRecord).find_conflict(wanted);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

std::optional<FileLock> LockTable::find_own(const Inode& inode, const FileLock& wanted) const {
  const MutexLock lock(mutex_);
  const LockedFile* const file = find(inode);
  const FileLock* const found =
      file == nullptr ? nullptr : file->of(LockKind::kRecord).find_own(wanted.owner, wanted.range);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

void LockTable::close_descriptor(const Inode& inode, LockOwner owner, std::uint64_t open) {
  change(inode, [&](LockedFile& file, bool) {
    file.of(LockKind::kRecord).clear_owner(owner);
    if (std::ranges::any_of(file.kinds, [&](const auto& locks) { return locks.has_open(open); })) {
      file.closing.insert(open);
    }
  });
}

void LockTable::close_open(const Inode& inode, std::uint64_t open) {
  change(inode, [&](LockedFile& file, bool) {
    for (RangeLocks& locks : file.kinds) {
      locks.clear_open(open);
    }
    file.closing.erase(open);
  });
}

void LockTable::end_wait(WaiterId id, int error_number) {
  Aftermath after;
  {
    const MutexLock lock(mutex_);
    if (!waiters_.contains(id)) {
      return;
    }
    Waiter ended = remove(id);
    LockedFile& file = *ended.file;
    if (!ended.order.waits) {
      // What would have been heard by now: those opens have other descriptors.
      file.of(ended.order.kind).for_each_conflict(ended.order.lock, [&](const FileLock& held) {
        file.closing.erase(held.open);
        return true;
      });
    }
    after.outcomes.emplace_back(std::move(ended.done), lock_outcome(error_number));
    forget_if_unused(file, after);
  }
  settle(std::move(after));
}

void LockTable::end_wait_later(WaiterId id) {
  timers_.schedule(kClosing, [this, id, weak = std::weak_ptr<Gate>(gate_)] {
    const auto gate = weak.lock();
    if (const Gate::Pass pass = gate ? gate->enter() : Gate::Pass()) {
      end_wait(id, EAGAIN);
    }
  });
}

void LockTable::shut_down() {
  gate_->close_and_wait();
  Aftermath after;
  {
    const MutexLock lock(mutex_);
    shut_down_ = true;
    while (!waiters_.empty()) {
      after.outcomes.emplace_back(remove(waiters_.begin()->first).done, lock_outcome(EINTR));
    }
    for (auto& [inode, file] : files_) {
      after.unused.push_back(std::move(file));
    }
    files_.clear();
    locks_ = 0;
  }
  settle(std::move(after));
}

std::size_t LockTable::files() const {
  const MutexLock lock(mutex_);
  return files_.size();
}

LockTable::LockedFile* LockTable::find(const Inode& inode) const {
  const auto found = files_.find(&inode);
  return found == files_.end() ? nullptr : found->second.get();
}

LockTable::LockedFile& LockTable::find_or_make(const InodeRef& inode) {
  std::unique_ptr<LockedFile>& file = files_[inode.get()];
  if (file == nullptr) {
    file = std::make_unique<LockedFile>(inode);
  }
  return *file;
}

LockTable::Waiter LockTable::remove(WaiterId id) {
  auto node = waiters_.extract(id);
  Waiter& waiter = node.mapped();
  waiter.file->waiters.erase(id);
  const auto [begin, end] = waiting_owners_.equal_range(waiter.order.lock.owner);
  const auto of_owner = std::find_if(begin, end, [id](const auto& at) { return at.second == id; });
  if (of_owner != end) {
    waiting_owners_.erase(of_owner);
  }
  return std::move(waiter);
}

// Its inode may die with it: behind the lock.
void LockTable::forget_if_unused(LockedFile& file, Aftermath& after) {
  if (file.waiters.empty() && file.size() == 0) {
    auto node = files_.extract(file.inode.get());
    after.unused.push_back(std::move(node.mapped()));
  }
}

void LockTable::settle(Aftermath after) {
  for (auto& [done, outcome] : after.outcomes) {
    done(std::move(outcome));
  }
}

}  // namespace larder::netfs
