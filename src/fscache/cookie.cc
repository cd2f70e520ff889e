#include "fscache/cookie.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "fscache/cookie_state.h"
#include "fscache/disk_work.h"
#include "fscache/volume.h"

namespace larder::fscache {

// The backend's object with what must outlive it. Whoever uses it holds it: that is the access pin.
struct Cookie::Object {
  std::shared_ptr<OnlineBackend> online;
  std::shared_ptr<Volume::Opened> volume;
  std::unique_ptr<BackendObject> object;
};

namespace {

Error no_object() {
  return {Errc::kNotFound, "the cache has no object of this file"};
}

}  // namespace

Cookie::Cookie(std::shared_ptr<Volume> volume, ObjectDescription description)
    : volume_(std::move(volume)), description_(std::move(description)) {}

Cookie::~Cookie() {
  volume_->forget(*this);
}

CookieState Cookie::state() const {
  const MutexLock lock(mutex_);
  return state_;
}

void Cookie::use(std::move_only_function<void()> done) {
  const std::shared_ptr<OnlineBackend> online = volume_->online();
  std::move_only_function<void()> at_once;
  {
    const MutexLock lock(mutex_);
    const bool retry = state_ == CookieState::kFailed && online != nullptr;
    if (retry) {
      move_to(CookieState::kQuiescent);
    }
    if (state_ == CookieState::kQuiescent && online != nullptr) {
      move_to(CookieState::kLookingUp);
      waiters_.push_back(std::move(done));
    } else if (state_ == CookieState::kLookingUp) {
      waiters_.push_back(std::move(done));
      return;
    } else {
      at_once = std::move(done);
    }
  }
  if (at_once) {
    at_once();
    return;
  }
  look_up(online);
}

void Cookie::look_up(const std::shared_ptr<OnlineBackend>& online) {
  online->work->run([self = shared_from_this(), online] { return self->find_object(online); },
                    [self = shared_from_this(), online](Result<> result) {
                      if (!result) {
                        self->fail_lookup(*online, result.error());
                      }
                    });
}

// On a disk thread. Tells the cookie itself: when the deadline passed, nobody else does.
Result<> Cookie::find_object(const std::shared_ptr<OnlineBackend>& online) {
  std::shared_ptr<Volume::Opened> volume = TRY(volume_->open(online));
  std::unique_ptr<BackendObject> object = TRY(volume->volume->open_object(description_));
  // The last holder may be any thread: the disk pool destroys the object, and its cache after it.
  adopt(std::shared_ptr<Object>(
      new Object{online, std::move(volume), std::move(object)},
      [](Object* last) { last->online->work->run_detached([last] { delete last; }); }));
  return {};
}

void Cookie::adopt(const std::shared_ptr<Object>& found) {
  std::vector<std::move_only_function<void()>> woken;
  bool superseded = false;
  {
    const MutexLock lock(mutex_);
    superseded = state_ == CookieState::kSuperseded;
    if (state_ == CookieState::kLookingUp) {
      object_ = found;
      woken = move_to(CookieState::kActive);
    }
    // kFailed: the deadline passed before; the next use looks again.
  }
  if (superseded) {
    found->object->supersede();
  }
  for (auto& waiter : woken) {
    waiter();
  }
}

void Cookie::fail_lookup(const OnlineBackend& online, const Error& error) {
  if (volume_->cache_ != nullptr) {
    volume_->cache_->note_error(online, error);
  }
  std::vector<std::move_only_function<void()>> woken;
  {
    const MutexLock lock(mutex_);
    woken = state_ == CookieState::kLookingUp ? move_to(CookieState::kFailed)
                                              : std::exchange(waiters_, {});
  }
  for (auto& waiter : woken) {
    waiter();
  }
}

// Returns whom to wake, once the lock is gone.
std::vector<std::move_only_function<void()>> Cookie::move_to(CookieState state) {
  CHECK(may_move(state_, state), "cookie from state {} to {}", static_cast<int>(state_),
        static_cast<int>(state));
  state_ = state;
  if (state == CookieState::kLookingUp) {
    return {};
  }
  return std::exchange(waiters_, {});
}

std::shared_ptr<Cookie::Object> Cookie::object() const {
  const MutexLock lock(mutex_);
  return object_;
}

ReadPlan Cookie::plan_read(ByteRange wanted) const {
  const std::shared_ptr<Object> pinned = object();
  if (pinned == nullptr) {
    return {Source::kServer, wanted, ReadWhy::kHole};
  }
  if (pinned->online->offline) {
    return {Source::kServer, wanted, ReadWhy::kDead};
  }
  if (pinned->online->work->hangs()) {
    return {Source::kServer, wanted, ReadWhy::kHangs};
  }
  return pinned->object->plan_read(wanted);
}

bool Cookie::has_object() const {
  return object() != nullptr;
}

bool Cookie::has_everything() const {
  const std::shared_ptr<Object> pinned = object();
  return pinned != nullptr && pinned->object->has_everything();
}

bool Cookie::complete() const {
  const std::shared_ptr<Object> pinned = object();
  return pinned != nullptr && pinned->object->complete();
}

bool Cookie::racy() const {
  const std::shared_ptr<Object> pinned = object();
  return pinned != nullptr && pinned->object->racy();
}

bool Cookie::cache_usable() const {
  const std::shared_ptr<Object> pinned = object();
  return pinned != nullptr && volume_->online() == pinned->online;
}

std::optional<std::uint64_t> Cookie::find_failed_read() const {
  const std::shared_ptr<Object> pinned = object();
  return pinned == nullptr ? std::nullopt : pinned->object->find_failed_read();
}

bool Cookie::wants_data() const {
  const MutexLock lock(mutex_);
  return state_ == CookieState::kActive && !object_->online->offline;
}

void Cookie::run(Work work, Outcome done) {
  const std::shared_ptr<Object> pinned = object();
  if (pinned == nullptr) {
    done(fail(no_object()));
    return;
  }
  DiskWork& disk = *pinned->online->work;
  disk.run([pinned, work = std::move(work)]() mutable { return work(*pinned->object); },
           noting_errors(pinned, std::move(done)));
}

// Tells the cache of errors that concern the whole of it.
Cookie::Outcome Cookie::noting_errors(std::shared_ptr<Object> pinned, Outcome done) {
  return [self = shared_from_this(), pinned = std::move(pinned),
          done = std::move(done)](Result<> result) mutable {
    if (!result) {
      self->volume_->cache_->note_error(*pinned->online, result.error());
    }
    pinned.reset();
    done(std::move(result));
  };
}

void Cookie::start_read(std::uint64_t offset, Buffer owner, MutableBytes into, Outcome done) {
  run([offset, owner = std::move(owner),
       into](BackendObject& object) { return object.read(offset, into); },
      std::move(done));
}

void Cookie::start_write(std::uint64_t offset, Buffer owner, Bytes from, Outcome done) {
  const std::shared_ptr<Object> pinned = wants_data() ? object() : nullptr;
  if (pinned == nullptr) {
    done(fail(no_object()));
    return;
  }
  DiskWork& disk = *pinned->online->work;
  DiskWork::Operation operation = [pinned, offset, owner = std::move(owner), from] {
    return pinned->object->write(offset, from);
  };
  DiskWork::Outcome outcome = noting_errors(pinned, std::move(done));
  if (!disk.try_run(operation, outcome)) {
    outcome(fail(Errc::kNoSpace, "the cache's disk is behind: not kept"));
  }
}

void Cookie::start_mark_complete(Outcome done) {
  run([](BackendObject& object) { return object.mark_complete(); }, std::move(done));
}

void Cookie::start_open_for_passthrough(std::move_only_function<void(Result<UniqueFd>)> done) {
  if (const std::shared_ptr<Object> pinned = object();
      pinned != nullptr && pinned->online->offline) {
    done(fail(Errc::kCacheDead, "the cache was taken offline"));
    return;
  }
  auto opened = std::make_shared<UniqueFd>();
  run(
      [opened](BackendObject& object) -> Result<> {
        *opened = TRY(object.open_for_passthrough());
        return {};
      },
      [opened, done = std::move(done)](Result<> result) mutable {
        if (!result) {
          done(fail(result.error()));
        } else {
          done(std::move(*opened));
        }
      });
}

void Cookie::start_overwrite(std::uint64_t offset, std::shared_ptr<const void> owner, Bytes from,
                             Outcome done) {
  run_superseded([offset, owner = std::move(owner),
                  from](BackendObject& object) { return object.overwrite(offset, from); },
                 std::move(done));
}

void Cookie::start_resize(std::uint64_t size, Outcome done) {
  run_superseded([size](BackendObject& object) { return object.resize(size); }, std::move(done));
}

void Cookie::run_superseded(Work work, Outcome done) {
  supersede();
  if (const std::shared_ptr<Object> pinned = object();
      pinned != nullptr && pinned->online->work->hangs()) {
    done(fail(Errc::kTimedOut, "the cache's disk does not answer"));
    return;
  }
  run(std::move(work), std::move(done));
}

void Cookie::start_look_for_readers(std::move_only_function<void(bool)> done) {
  auto found = std::make_shared<bool>(false);
  run(
      [found](BackendObject& object) -> Result<> {
        *found = TRY(object.is_open_elsewhere());
        return {};
      },
      [found, done = std::move(done)](const Result<>& result) mutable {
        done(result.has_value() && *found);
      });
}

void Cookie::note_use() {
  if (const std::shared_ptr<Object> pinned = object(); pinned != nullptr) {
    pinned->object->note_use();
  }
}

void Cookie::supersede() {
  std::shared_ptr<Object> pinned;
  std::vector<std::move_only_function<void()>> woken;
  {
    const MutexLock lock(mutex_);
    if (state_ == CookieState::kSuperseded) {
      return;
    }
    pinned = object_;
    woken = move_to(CookieState::kSuperseded);
  }
  if (pinned != nullptr) {
    pinned->object->supersede();
  }
  for (auto& waiter : woken) {
    waiter();
  }
}

}  // namespace larder::fscache
