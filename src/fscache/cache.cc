#include "fscache/cache.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "fscache/backend.h"
#include "fscache/disk_work.h"

namespace larder::fscache {

namespace {

constexpr std::size_t kMostQueuedMaintenance = 16;
// What was let go has left the disk pool by then, and can be culled.
constexpr std::chrono::milliseconds kBetweenAsking{100};

}  // namespace

std::string_view name_of(CacheState state) {
  switch (state) {
    case CacheState::kNotPresent:
      return "not-present";
    case CacheState::kActive:
      return "active";
    case CacheState::kSuspended:
      return "suspended";
    case CacheState::kError:
      return "error";
    case CacheState::kWithdrawn:
      return "withdrawn";
  }
  return "?";
}

Cache::Cache(std::string tag, Executor& executor, OnError on_error)
    : tag_(std::move(tag)),
      executor_(executor),
      on_error_(std::move(on_error)),
      work_(std::make_shared<DiskWork>(executor, "disk", DiskWork::Limits{},
                                       [this](const DiskWork& work) { note_disk(work); })),
      maintenance_(executor.make_pool("cache-care", 1, kMostQueuedMaintenance)) {}

Cache::~Cache() {
  withdraw([] {});
}

Result<std::shared_ptr<OnlineBackend>> Cache::add_backend(std::unique_ptr<Backend> backend) {
  std::shared_ptr<OnlineBackend> online;
  {
    const MutexLock lock(mutex_);
    if (present_) {
      return fail(Errc::kBusy, fmt::format("cache {}: already online, or not quite offline", tag_));
    }
    present_ = true;
    online_ = online =
        std::shared_ptr<OnlineBackend>(new OnlineBackend{std::move(backend), work_.get(), false},
                                       [this](OnlineBackend* last) { retire(last); });
    state_ = work_->hangs() ? CacheState::kSuspended : CacheState::kActive;
    trouble_.clear();
  }
  const std::weak_ptr<OnlineBackend> weak = online;
  online->backend->set_maintenance_wake(
      [this, weak] { schedule_maintenance(weak, Duration::zero()); });
  schedule_maintenance(weak, Duration::zero());
  log_info("cache {}: online", tag_);
  return online;
}

void Cache::withdraw(Task done, std::string why) {
  std::shared_ptr<OnlineBackend> online;
  {
    const MutexLock lock(mutex_);
    online = std::move(online_);
    online_.reset();
    if (online != nullptr) {
      online->offline = true;
      leaving_ = online;
      if (state_ != CacheState::kError) {
        state_ = CacheState::kWithdrawn;
        trouble_ = std::move(why);
      }
    }
    if (present_) {
      when_withdrawn_.push_back(std::move(done));
      done = nullptr;
    }
  }
  if (done) {
    done();
  }
  // The last reference may go here, outside of the lock: see retire().
}

std::shared_ptr<OnlineBackend> Cache::leaving() const {
  const MutexLock lock(mutex_);
  return leaving_.lock();
}

Result<> Cache::readmit(const std::shared_ptr<OnlineBackend>& backend) {
  {
    const MutexLock lock(mutex_);
    if (online_ != nullptr || leaving_.lock() != backend) {
      return fail(Errc::kBusy, fmt::format("cache {}: already online", tag_));
    }
    leaving_.reset();
    backend->offline = false;
    online_ = backend;
    state_ = work_->hangs() ? CacheState::kSuspended : CacheState::kActive;
    trouble_.clear();
  }
  schedule_maintenance(backend, Duration::zero());
  log_info("cache {}: online again, its open files never left it", tag_);
  return {};
}

// The last user let go, on whatever thread: the disk pool closes the books.
void Cache::retire(OnlineBackend* online) {
  work_->run_detached([this, online] {
    std::unique_ptr<OnlineBackend> owned(online);
    // Nobody is left to be woken: in the destructor the maintenance pool is gone already.
    owned->backend->set_maintenance_wake([] {});
    if (owned->backend->usable()) {
      if (Result<> result = owned->backend->withdraw(); !result) {
        log_warning("cache {}: going offline: {}", tag_, result.error().message());
      }
    }
    owned.reset();
    std::vector<Task> done;
    {
      const MutexLock lock(mutex_);
      present_ = false;
      done = std::move(when_withdrawn_);
      when_withdrawn_.clear();
    }
    log_info("cache {}: offline", tag_);
    for (Task& task : done) {
      task();
    }
  });
}

std::shared_ptr<OnlineBackend> Cache::online() const {
  const MutexLock lock(mutex_);
  return state_ == CacheState::kActive ? online_ : nullptr;
}

void Cache::note_error(const OnlineBackend& backend, const Error& error) {
  if (error.code() != Errc::kIo && error.code() != Errc::kCacheDead) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    if (online_.get() != &backend || state_ == CacheState::kError) {
      return;
    }
    state_ = CacheState::kError;
    trouble_ = fmt::format(
        "caching stopped after an error of the cache's disk ({}): check the disk, then `larder "
        "cache attach {}` lets it be used again",
        error.message(), tag_);
    log_error("cache {}: {}", tag_, trouble_);
  }
  if (on_error_) {
    on_error_(tag_);
  }
}

void Cache::note_disk(const DiskWork& work) {
  const MutexLock lock(mutex_);
  const bool hangs = work.hangs();
  if (hangs && state_ == CacheState::kActive) {
    state_ = CacheState::kSuspended;
    trouble_ = "the cache's disk does not answer; files come from the server until it does";
    log_warning("cache {}: {}", tag_, trouble_);
  } else if (!hangs && state_ == CacheState::kSuspended) {
    state_ = CacheState::kActive;
    trouble_.clear();
    log_info("cache {}: the disk answers again", tag_);
  }
}

void Cache::forget_trouble() {
  const MutexLock lock(mutex_);
  if (online_ == nullptr && state_ == CacheState::kError) {
    state_ = CacheState::kWithdrawn;
  }
  if (online_ == nullptr) {
    trouble_.clear();
  }
}

CacheStatus Cache::status() const {
  CacheStatus status;
  std::shared_ptr<OnlineBackend> online;
  {
    const MutexLock lock(mutex_);
    status = {tag_, state_, trouble_, std::nullopt, present_};
    online = online_ != nullptr ? online_ : leaving_.lock();
  }
  if (online != nullptr) {
    status.backend = online->backend->status();
    if (status.trouble.empty()) {
      status.trouble = status.backend->trouble;
    }
  }
  return status;
}

void Cache::schedule_maintenance(const std::weak_ptr<OnlineBackend>& online, Duration delay) {
  if (delay == Duration::zero()) {
    Task task = [this, online] { maintain(online); };
    // A full queue holds maintenance enough.
    [[maybe_unused]] const bool posted = maintenance_->try_post(task);
    return;
  }
  const TimerId timer = executor_.timers().schedule(delay, [weak_cache = weak_from_this(), online] {
    const auto self = weak_cache.lock();
    if (self != nullptr && !online.expired()) {
      self->schedule_maintenance(online, Duration::zero());
    }
  });
  std::optional<TimerId> before;
  {
    const MutexLock lock(mutex_);
    before = std::exchange(next_maintenance_, timer);
  }
  if (before) {
    executor_.timers().cancel(*before);  // a wake came between: one timer is enough
  }
}

void Cache::maintain(const std::weak_ptr<OnlineBackend>& weak) {
  const std::shared_ptr<OnlineBackend> online = weak.lock();
  if (online == nullptr) {
    return;
  }
  {
    const MutexLock lock(mutex_);
    if (online_ != online || state_ == CacheState::kError) {
      return;
    }
  }
  Duration next = online->backend->run_maintenance();
  if (!online->backend->usable()) {
    note_error(*online, Error(Errc::kCacheDead, online->backend->status().trouble));
    return;
  }
  if (online->backend->take_pressed()) {
    next = std::min(next, ask_for_room().value_or(next));
  }
  schedule_maintenance(weak, std::max(next, Duration(std::chrono::milliseconds(1))));
}

void Cache::add_room_giver(std::weak_ptr<RoomGiver> giver) {
  const MutexLock lock(mutex_);
  std::erase_if(room_givers_, [](const auto& other) { return other.expired(); });
  room_givers_.push_back(std::move(giver));
}

// In how long there may be room; nullopt: nobody has anything to give.
std::optional<Duration> Cache::ask_for_room() {
  const MonotonicTime now = executor_.clock().now();
  if (now < ask_again_) {
    return ask_again_ - now;
  }
  ask_again_ = now + kBetweenAsking;
  std::vector<std::weak_ptr<RoomGiver>> givers;
  {
    const MutexLock lock(mutex_);
    givers = room_givers_;
  }
  bool given = false;
  for (const std::weak_ptr<RoomGiver>& weak : givers) {
    if (const std::shared_ptr<RoomGiver> giver = weak.lock()) {
      given = giver->give_room() || given;
    }
  }
  return given ? std::optional<Duration>(kBetweenAsking) : std::nullopt;
}

std::shared_ptr<Cache> Caches::find_or_make(const std::string& tag) {
  const MutexLock lock(mutex_);
  for (const auto& cache : caches_) {
    if (cache->tag() == tag) {
      return cache;
    }
  }
  caches_.push_back(std::make_shared<Cache>(tag, executor_, on_error_));
  return caches_.back();
}

std::vector<std::shared_ptr<Cache>> Caches::all() const {
  const MutexLock lock(mutex_);
  return caches_;
}

}  // namespace larder::fscache
