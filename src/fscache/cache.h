// Cache: one cache as the upper side sees it: a tag, a state, and the backend while there is one.
//
// A mount asks for a cache by its tag, whether it is there yet or not; caches come and go under
// mounts that go on. Volumes and cookies hold the Cache, never the backend itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/gate.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fscache/backend.h"
#include "fscache/disk_work.h"

namespace larder::fscache {

enum class CacheState : std::uint8_t {
  kNotPresent,  // '-' nobody has brought it online
  kActive,      // 'A' in use
  kSuspended,   // 'H' its disk does not answer; goes back to active when it does
  kError,       // 'E' an I/O error: nothing of it is used before it is brought online anew
  kWithdrawn,   // 'W' taken offline
};

[[nodiscard]] std::string_view name_of(CacheState state);

struct CacheStatus {
  std::string tag;
  CacheState state = CacheState::kNotPresent;
  std::string trouble;  // why nothing is cached, as a sentence; "" when all is well
  std::optional<BackendStatus> backend;
  bool present = false;  // its disk is in use still
};

// A backend from add to withdrawal: volumes and objects hold it, and withdrawal waits for the last
// of them. When the cache comes online again it gets a new one.
struct OnlineBackend {
  std::unique_ptr<Backend> backend;
  DiskWork* work = nullptr;          // the cache's
  std::atomic<bool> offline{false};  // withdrawn: nothing new is read from it or kept in it
};

// Keeps cookies that nobody needs just now, for who may need them again, and with them objects in
// use.
class RoomGiver {
 public:
  RoomGiver() = default;
  RoomGiver(const RoomGiver&) = delete;
  RoomGiver& operator=(const RoomGiver&) = delete;
  virtual ~RoomGiver() = default;

  // The cache is pressed for room: lets go of some of them. False: there are none. Called by the
  // thread that maintains the cache, a few times a second at most, under no lock; must not wait for
  // that cache.
  virtual bool give_room() = 0;
};

// Threads: any. Life: owned by Caches; every volume and cookie goes before it.
class Cache : public std::enable_shared_from_this<Cache> {
 public:
  // Called once for each backend that had an I/O error, by whatever thread met it, with no lock
  // held.
  using OnError = std::function<void(const std::string& tag)>;

  Cache(std::string tag, Executor& executor, OnError on_error = {});

  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;
  ~Cache();

  [[nodiscard]] const std::string& tag() const { return tag_; }

  // Brings it online; kBusy, and the backend is destroyed as it is, when it is already.
  [[nodiscard]] Result<std::shared_ptr<OnlineBackend>> add_backend(std::unique_ptr<Backend> backend)
      EXCLUDES(mutex_);
  // Takes it offline: `done` runs, on a disk thread, when all is durable and the backend is gone;
  // at once when it was not online. Objects still held (passthrough) delay it. `why` is a sentence
  // for the status, where an error stays that ended its use before.
  void withdraw(Task done, std::string why = "the cache was taken offline") EXCLUDES(mutex_);
  // The backend that was withdrawn, while open files hold it; null: there is none, or it closes its
  // books just now.
  [[nodiscard]] std::shared_ptr<OnlineBackend> leaving() const EXCLUDES(mutex_);
  // Online again with that one: what its holders have open is in use as before. kBusy: it is online
  // already, or `backend` is not the one that was withdrawn.
  [[nodiscard]] Result<> readmit(const std::shared_ptr<OnlineBackend>& backend) EXCLUDES(mutex_);
  // The backend if the cache can be used now, else null.
  [[nodiscard]] std::shared_ptr<OnlineBackend> online() const EXCLUDES(mutex_);
  // A backend call failed with `error`: an I/O error ends the use of this incarnation. No lock is
  // held.
  void note_error(const OnlineBackend& backend, const Error& error) EXCLUDES(mutex_);
  // Its disk may have begun to hang, or to answer: looks whether it hangs now. News come late, and
  // from several threads.
  void note_disk(const DiskWork& work) EXCLUDES(mutex_);
  // It may come online again: why it went does not count any more.
  void forget_trouble() EXCLUDES(mutex_);
  // Whom to ask when room is short, as long as he lives.
  void add_room_giver(std::weak_ptr<RoomGiver> giver) EXCLUDES(mutex_);

  [[nodiscard]] CacheStatus status() const EXCLUDES(mutex_);

 private:
  void schedule_maintenance(const std::weak_ptr<OnlineBackend>& online, Duration delay)
      EXCLUDES(mutex_);
  void maintain(const std::weak_ptr<OnlineBackend>& weak);
  [[nodiscard]] std::optional<Duration> ask_for_room() EXCLUDES(mutex_);
  void retire(OnlineBackend* online) EXCLUDES(mutex_);

  const std::string tag_;
  Executor& executor_;
  const OnError on_error_;
  mutable Mutex mutex_{LockRank::kCache};
  CacheState state_ GUARDED_BY(mutex_) = CacheState::kNotPresent;
  std::string trouble_ GUARDED_BY(mutex_);
  std::shared_ptr<OnlineBackend> online_ GUARDED_BY(mutex_);
  std::weak_ptr<OnlineBackend> leaving_ GUARDED_BY(mutex_);
  // From add_backend until the backend is gone: withdrawn, it is held by others, then closes its
  // books on a disk thread.
  bool present_ GUARDED_BY(mutex_) = false;
  std::vector<Task> when_withdrawn_ GUARDED_BY(mutex_);
  std::optional<TimerId> next_maintenance_ GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<RoomGiver>> room_givers_ GUARDED_BY(mutex_);
  MonotonicTime ask_again_{};  // of the thread that maintains: for room
  std::shared_ptr<DiskWork> work_;
  std::unique_ptr<Pool> maintenance_;
};

// The caches of a machine by tag. Threads: any.
class Caches {
 public:
  explicit Caches(Executor& executor, Cache::OnError on_error = {})
      : executor_(executor), on_error_(std::move(on_error)) {}

  // Makes an absent one when nobody named it before.
  [[nodiscard]] std::shared_ptr<Cache> find_or_make(const std::string& tag) EXCLUDES(mutex_);
  [[nodiscard]] std::vector<std::shared_ptr<Cache>> all() const EXCLUDES(mutex_);

 private:
  Executor& executor_;
  const Cache::OnError on_error_;
  mutable Mutex mutex_{LockRank::kMounts};
  std::vector<std::shared_ptr<Cache>> caches_ GUARDED_BY(mutex_);
};

}  // namespace larder::fscache
