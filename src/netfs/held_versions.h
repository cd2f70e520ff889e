// HeldVersions: the versions of one file that somebody holds for passthrough, and which of them are
// in step.
//
// Who holds a version reads its backing file by himself, past us. In step is a version whose
// backing file holds what the server has: also after our own changes, which are put there when the
// server has confirmed them, before whoever made them is answered. It falls out of step for good
// when others changed the file, when nobody knows what became of a change of ours, or when its
// backing file cannot be written: its holders go on reading what they have (close-to-open).
//
// Who closed a file may have mapped it, and reads on; the kernel does not tell when he ends. So a
// hold outlives the close, and of a version that nobody has open any more the cache's disk is asked
// whether somebody reads it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fscache/cookie.h"
#include "netfs/attributes.h"
#include "netfs/inode.h"
#include "netfs/share_context.h"
#include "netfs/version.h"

namespace larder::netfs {

class File;
class PassthroughHold;

// Threads: any; changes come one at a time, as the writer of the file orders them. Life: shared by
// the file and by the holds of it.
class HeldVersions : public std::enable_shared_from_this<HeldVersions> {
 public:
  HeldVersions(std::shared_ptr<ShareContext> share, InodeRef inode);
  ~HeldVersions();
  HeldVersions(const HeldVersions&) = delete;
  HeldVersions& operator=(const HeldVersions&) = delete;

  // `holder`: the front end's number of who holds it; `file` lives as long as he does. By the file
  // only, while nobody can write.
  [[nodiscard]] std::unique_ptr<PassthroughHold> hold(const VersionRef& version,
                                                      std::uint64_t holder,
                                                      std::shared_ptr<File> file) EXCLUDES(mutex_);

  // From memory, without a lock: what is written now is to be put somewhere.
  [[nodiscard]] bool any_in_step() const { return in_step_.load(std::memory_order_acquire) > 0; }

  // Others changed the file, or nobody can say.
  void fall_behind() EXCLUDES(mutex_);

  // The server has confirmed a change of ours, and the inode knows what it said. `done` runs in any
  // case, when all that are in step have it, or are not in step any more. `owner` keeps the bytes.
  void write(std::uint64_t offset, std::shared_ptr<const void> owner, Bytes bytes,
             std::move_only_function<void()> done) EXCLUDES(mutex_);
  void resize(std::uint64_t size, std::move_only_function<void()> done) EXCLUDES(mutex_);

 private:
  friend class File;
  friend class PassthroughHold;

  // A version and its holders.
  struct Held {
    VersionRef version;
    bool in_step = false;
    Attributes content;  // size, stamps and use of what its backing file holds
    std::vector<PassthroughHold*> holders;
  };

  using HeldRef = std::shared_ptr<Held>;
  using Put = std::function<void(fscache::Cookie&, fscache::Cookie::Outcome)>;
  // What the file's size is after a change, from what it was.
  using NewSize = std::function<std::uint64_t(std::uint64_t)>;

  void put(const Put& put, const NewSize& new_size, std::move_only_function<void()> done)
      EXCLUDES(mutex_);
  // To one version, if somebody reads it.
  void put_to(const HeldRef& held, const Put& put, fscache::Cookie::Outcome done) EXCLUDES(mutex_);
  void finish_put(const HeldRef& held, const Attributes& content, const Result<>& result)
      EXCLUDES(mutex_);
  void drop_out(Held& held) REQUIRES(mutex_);
  void set_open(PassthroughHold& hold, bool open) EXCLUDES(mutex_);
  void let_go(PassthroughHold& hold) EXCLUDES(mutex_);
  [[nodiscard]] Attributes shown(const Held& held, const Attributes& now) const EXCLUDES(mutex_);

  const std::shared_ptr<ShareContext> share_;
  const InodeRef inode_;
  std::atomic<std::size_t> in_step_{0};  // versions; changed under the lock

  mutable Mutex mutex_{LockRank::kHeldVersions};
  std::vector<HeldRef> held_ GUARDED_BY(mutex_);
};

// One holder of a version, as long as it lives. Threads: any; destroyed without a lock.
class PassthroughHold {
 public:
  // By HeldVersions::hold() only.
  PassthroughHold(std::shared_ptr<File> file, std::shared_ptr<HeldVersions> all,
                  HeldVersions::HeldRef held, std::uint64_t holder);
  ~PassthroughHold();
  PassthroughHold(const PassthroughHold&) = delete;
  PassthroughHold& operator=(const PassthroughHold&) = delete;

  // `now`, the file's newest attributes, as they are to be shown to who reads by this hold: with
  // the size and the stamps of what he reads.
  [[nodiscard]] Attributes shown(const Attributes& now) const;

  // The same for all that hold one version.
  [[nodiscard]] const void* version() const { return held_.get(); }

  [[nodiscard]] std::uint64_t holder() const { return holder_; }

  // The holder has closed it; perhaps he has it mapped. File::hold_again() takes that back.
  void note_closed();
  // Whether somebody reads the version past us.
  void look_for_readers(std::move_only_function<void(bool)> done) const;

 private:
  friend class File;
  friend class HeldVersions;

  const std::shared_ptr<File> file_;
  const std::shared_ptr<HeldVersions> all_;
  const HeldVersions::HeldRef held_;
  const std::uint64_t holder_;
  bool open_ = true;  // guarded by the lock of all_
};

using PassthroughHoldRef = std::unique_ptr<PassthroughHold>;

}  // namespace larder::netfs
