// Cookie: what netfs holds to have one version of one file cached.
//
// Every call works without a cache too: it then says "server" or "failed". The object behind a
// cookie is looked up at the first use, kept while the cookie lives, and let go on the disk pool.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "fscache/backend.h"
#include "fscache/cookie_state.h"

namespace larder::fscache {

class Cache;
class Volume;
struct OnlineBackend;

// Threads: any; `done` callbacks run on a disk thread, on the timer thread after a deadline, or
// before the call returns when there is nothing to wait for. They run exactly once.
// Life: shared by all who have this version open.
class Cookie : public std::enable_shared_from_this<Cookie> {
 public:
  using Outcome = std::move_only_function<void(Result<>)>;

  // By Volume::acquire_cookie only.
  Cookie(std::shared_ptr<Volume> volume, ObjectDescription description);
  ~Cookie();
  Cookie(const Cookie&) = delete;
  Cookie& operator=(const Cookie&) = delete;

  [[nodiscard]] const ObjectDescription& description() const { return description_; }

  [[nodiscard]] CookieState state() const EXCLUDES(mutex_);

  // Makes sure that the object was looked for; `done` when that is known, whatever came of it.
  void use(std::move_only_function<void()> done) EXCLUDES(mutex_);

  // The longest prefix of `wanted` with one source, from memory; kServer while not looked up, and
  // while the cache's disk does not answer: nobody is to wait for it.
  [[nodiscard]] ReadPlan plan_read(ByteRange wanted) const EXCLUDES(mutex_);
  [[nodiscard]] bool has_object() const EXCLUDES(mutex_);
  [[nodiscard]] bool has_everything() const EXCLUDES(mutex_);
  [[nodiscard]] bool complete() const EXCLUDES(mutex_);
  [[nodiscard]] bool racy() const EXCLUDES(mutex_);
  // The object's cache is online and sound: its backing file may be opened once more.
  [[nodiscard]] bool cache_usable() const EXCLUDES(mutex_);
  // BackendObject::find_failed_read(); nullopt without an object.
  [[nodiscard]] std::optional<std::uint64_t> find_failed_read() const EXCLUDES(mutex_);
  // Writes would be of use: there is an object, and it is not superseded.
  [[nodiscard]] bool wants_data() const EXCLUDES(mutex_);

  // Fills `into`, a part of `owner`, from `offset`. After kTimedOut the disk may still write to it;
  // after any error its bytes mean nothing.
  void start_read(std::uint64_t offset, Buffer owner, MutableBytes into, Outcome done)
      EXCLUDES(mutex_);
  // Keeps bytes of this version: best effort, kNoSpace when the cache is full or its disk is
  // behind. `owner` keeps `from` alive.
  void start_write(std::uint64_t offset, Buffer owner, Bytes from, Outcome done) EXCLUDES(mutex_);
  void start_mark_complete(Outcome done) EXCLUDES(mutex_);
  void start_open_for_passthrough(std::move_only_function<void(Result<UniqueFd>)> done)
      EXCLUDES(mutex_);
  void note_use() EXCLUDES(mutex_);

  // The server has a newer version. Reads of holders go on.
  void supersede() EXCLUDES(mutex_);
  // Supersedes it; then changes the backing file as the server's was changed (BackendObject). Fails
  // at once while the cache's disk hangs: somebody waits. `owner` keeps `from` alive.
  void start_overwrite(std::uint64_t offset, std::shared_ptr<const void> owner, Bytes from,
                       Outcome done) EXCLUDES(mutex_);
  void start_resize(std::uint64_t size, Outcome done) EXCLUDES(mutex_);
  // Whether somebody has the backing file open, or mapped, past us; false where nobody can tell.
  void start_look_for_readers(std::move_only_function<void(bool)> done) EXCLUDES(mutex_);

 private:
  struct Object;
  using Work = std::move_only_function<Result<>(BackendObject&)>;

  void look_up(const std::shared_ptr<OnlineBackend>& online);
  Result<> find_object(const std::shared_ptr<OnlineBackend>& online);
  void adopt(const std::shared_ptr<Object>& found) EXCLUDES(mutex_);
  void fail_lookup(const OnlineBackend& online, const Error& error) EXCLUDES(mutex_);
  std::vector<std::move_only_function<void()>> move_to(CookieState state) REQUIRES(mutex_);
  [[nodiscard]] std::shared_ptr<Object> object() const EXCLUDES(mutex_);
  void run(Work work, Outcome done);
  void run_superseded(Work work, Outcome done);
  [[nodiscard]] Outcome noting_errors(std::shared_ptr<Object> pinned, Outcome done);

  const std::shared_ptr<Volume> volume_;
  const ObjectDescription description_;
  mutable Mutex mutex_{LockRank::kCookie};
  CookieState state_ GUARDED_BY(mutex_) = CookieState::kQuiescent;
  std::shared_ptr<Object> object_ GUARDED_BY(mutex_);
  std::vector<std::move_only_function<void()>> waiters_ GUARDED_BY(mutex_);
};

}  // namespace larder::fscache
