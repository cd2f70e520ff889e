// LockTable: the locks that processes of this machine hold on the files of a share, by inode, and
// who waits for one. The server hears nothing of them.
//
// What stands in somebody's way is what is held, never what others wait for: as on a local disk, a
// lock that can be held beside those that are is granted at once. Whenever locks of a file go or
// become weaker, those who wait for the file are tried in the order in which they came.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "netfs/adapter.h"
#include "netfs/call_scope.h"
#include "netfs/inode.h"
#include "netfs/range_locks.h"

namespace larder::netfs {

// They do not see each other.
enum class LockKind : std::uint8_t {
  kRecord,     // fcntl(2): of a process, or of an open file; the search for deadlocks is among them
  kWholeFile,  // flock(2): of an open file, which gives up the mode that it had before it asks
};

struct LockOrder {
  LockKind kind = LockKind::kRecord;
  FileLock lock;
  bool waits = false;  // until it can be had; else EAGAIN
};

// Threads: any; a `done` runs once, perhaps before the call returns, perhaps on the thread of
// whoever gave the lock up. Nothing is kept of a file without locks.
// Errors: EAGAIN; EDEADLK; ENOLCK; EINTR for a wait that CallScope::cancel() or shut_down() ended.
// Life: shut_down() before destruction; outlives the scopes that it was given.
class LockTable {
 public:
  // Of a whole share: what a process can have us keep is bounded.
  static constexpr std::size_t kMostLocks = 1'000'000;
  // How long a try-lock waits for the news that an open is over of which a descriptor was closed.
  static constexpr std::chrono::milliseconds kClosing{100};

  explicit LockTable(Timers& timers, std::size_t most_locks = kMostLocks);
  ~LockTable();
  LockTable(const LockTable&) = delete;
  LockTable& operator=(const LockTable&) = delete;

  // Takes or waits for a lock; `scope` (may be null) ends the wait.
  void lock(const InodeRef& inode, const LockOrder& order, const std::shared_ptr<CallScope>& scope,
            Done<void> done) EXCLUDES(mutex_);
  // Gives up what the owner has on the lock's range; the mode does not matter.
  Result<> unlock(const Inode& inode, const LockOrder& order) EXCLUDES(mutex_);
  // The first record lock that `wanted` would have to wait for.
  [[nodiscard]] std::optional<FileLock> find_conflict(const Inode& inode,
                                                      const FileLock& wanted) const
      EXCLUDES(mutex_);
  // The owner's first record lock that touches the range of `wanted`.
  [[nodiscard]] std::optional<FileLock> find_own(const Inode& inode, const FileLock& wanted) const
      EXCLUDES(mutex_);

  // The owner closed a descriptor of this open: his record locks of the file go, through whichever
  // open he set them. Others' of this open stay: it may have more descriptors.
  void close_descriptor(const Inode& inode, LockOwner owner, std::uint64_t open) EXCLUDES(mutex_);
  // The open is over: what was set through it goes.
  void close_open(const Inode& inode, std::uint64_t open) EXCLUDES(mutex_);

  // Ends every wait, and every one that comes.
  void shut_down() EXCLUDES(mutex_);

  // Files of which anything is kept.
  [[nodiscard]] std::size_t files() const EXCLUDES(mutex_);

 private:
  using WaiterId = std::uint64_t;  // in the order in which they came

  struct LockedFile {
    explicit LockedFile(InodeRef of) : inode(std::move(of)) {}

    RangeLocks& of(LockKind kind) { return kinds.at(static_cast<std::size_t>(kind)); }

    [[nodiscard]] const RangeLocks& of(LockKind kind) const {
      return kinds.at(static_cast<std::size_t>(kind));
    }

    [[nodiscard]] std::size_t size() const { return kinds[0].size() + kinds[1].size(); }

    const InodeRef inode;
    std::array<RangeLocks, 2> kinds;
    std::set<WaiterId> waiters;
    // Opens with locks, of which a descriptor was closed and nothing has been heard since.
    std::set<std::uint64_t> closing;
    // Somebody who waits elsewhere got a lock: those who wait for it may wait for themselves.
    bool may_deadlock = false;
  };

  struct Waiter {
    LockedFile* file = nullptr;
    LockOrder order;
    Done<void> done;
  };

  // What is left to do when the lock is not held any more.
  struct Aftermath {
    std::vector<std::pair<Done<void>, Result<>>> outcomes;
    std::vector<std::unique_ptr<LockedFile>> unused;
  };

  [[nodiscard]] LockedFile* find(const Inode& inode) const REQUIRES(mutex_);
  [[nodiscard]] LockedFile& find_or_make(const InodeRef& inode) REQUIRES(mutex_);
  // The waiter that it became, or nothing: it is decided.
  std::optional<WaiterId> begin(LockedFile& file, const LockOrder& order, Done<void>& done,
                                Aftermath& after) REQUIRES(mutex_);
  // An error number; 0: it may be had.
  [[nodiscard]] int refusal_of(const LockedFile& file, const LockOrder& order) const
      REQUIRES(mutex_);
  void hold(LockedFile& file, const LockOrder& order) REQUIRES(mutex_);
  // Runs `change` on the file's locks, told whether there are too many, and what follows.
  template <class Change>
  void change(const Inode& inode, Change change) EXCLUDES(mutex_);
  void serve(LockedFile& file, Aftermath& after) REQUIRES(mutex_);
  void end_deadlocks(LockedFile& file, Aftermath& after) REQUIRES(mutex_);
  [[nodiscard]] bool would_deadlock(const LockedFile& file, const FileLock& wanted) const
      REQUIRES(mutex_);
  // Takes it off the table; it is to be answered.
  Waiter remove(WaiterId id) REQUIRES(mutex_);
  void forget_if_unused(LockedFile& file, Aftermath& after) REQUIRES(mutex_);
  void end_wait(WaiterId id, int error_number) EXCLUDES(mutex_);
  void end_wait_later(WaiterId id);
  static void settle(Aftermath after);

  Timers& timers_;
  const std::size_t most_locks_;
  const std::shared_ptr<Gate> gate_;  // what runs later holds it weakly

  mutable Mutex mutex_{LockRank::kFileLocks};
  std::unordered_map<const Inode*, std::unique_ptr<LockedFile>> files_ GUARDED_BY(mutex_);
  std::map<WaiterId, Waiter> waiters_ GUARDED_BY(mutex_);
  // Who waits for record locks, for as long as it takes.
  std::unordered_multimap<LockOwner, WaiterId> waiting_owners_ GUARDED_BY(mutex_);
  WaiterId last_waiter_ GUARDED_BY(mutex_) = 0;
  std::size_t locks_ GUARDED_BY(mutex_) = 0;
  bool shut_down_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::netfs
