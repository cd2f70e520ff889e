// RecentFiles: files that were closed a moment ago: opened again, they need no disk.
//
// What the cache has of them is in use as long. So where it is pressed for room, those that were
// closed longest ago are let go before their time; and the front end does the same.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/gate.h"
#include "base/linger_list.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "fscache/cache.h"
#include "netfs/file.h"
#include "netfs/share_context.h"

namespace larder::netfs {

// Threads: any. Life: shared by its share and by its timer; close() before the share goes.
class RecentFiles final : public fscache::RoomGiver,
                          public std::enable_shared_from_this<RecentFiles> {
 public:
  static constexpr std::chrono::seconds kTime{10};
  static constexpr std::size_t kMost = 2048;

  explicit RecentFiles(std::shared_ptr<ShareContext> share) : share_(std::move(share)) {}

  // Nobody has the file open any more.
  void add(const std::shared_ptr<File>& file) EXCLUDES(mutex_);
  // What somebody has open again stays as it is, and what holds bytes that the server may not have.
  bool give_room() override EXCLUDES(mutex_);
  // Lets go of all, and of what comes later. Waits for who lets go of some.
  void close() EXCLUDES(mutex_);

 private:
  [[nodiscard]] std::vector<std::shared_ptr<File>> take_part() EXCLUDES(mutex_);
  void let_go_later(Duration delay);
  void let_go_of_old() EXCLUDES(mutex_);

  const std::shared_ptr<ShareContext> share_;
  Gate gate_;  // who lets go of some is inside
  Mutex mutex_{LockRank::kInode};
  LingerList<std::shared_ptr<File>> files_ GUARDED_BY(mutex_);  // some are open again
  bool asked_ GUARDED_BY(mutex_) = false;  // the cache knows us: there was something to give
  bool timer_set_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::netfs
