#include "engine/cache_binder.h"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>

#include "base/byte_count.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "cachefiles/cache.h"
#include "cachefiles/space.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "handover/engine_end.h"
#include "os/filesystem.h"

namespace larder::engine {

namespace {

constexpr std::size_t kMostQueuedBinds = 64;
constexpr unsigned kBindThreads = 8;  // a disk that hangs keeps one
// For a cache that closes its books; and in between.
constexpr std::chrono::seconds kClosingPatience{10};
constexpr std::chrono::milliseconds kClosingPause{50};
// For a mount that waits for its cache; the command line gives up on the mount after 30 s.
constexpr std::chrono::seconds kPatience{10};

std::string sentence_for(const Error& error) {
  return fmt::format("nothing is cached, the cache cannot be used: {}", error.message());
}

std::string detached_sentence(const std::string& tag) {
  return fmt::format("the cache {0} is detached: `larder cache attach {0}` lets it be used again",
                     tag);
}

}  // namespace

CacheBinder::CacheBinder(Executor& executor, handover::EngineEnd& keeper)
    : keeper_(keeper),
      filesystem_(os::make_posix_filesystem()),
      clock_(executor.clock()),
      timers_(executor.timers()),
      caches_(executor, [this](const std::string& tag) { on_error(tag); }),
      pool_(executor.make_pool("cache-bind", kBindThreads, kMostQueuedBinds)) {}

CacheBinder::~CacheBinder() = default;

void CacheBinder::bring_online(const std::string& path, std::uint64_t size, Ready ready) {
  if (size != 0) {
    ready = [this, path, size, inner = std::move(ready)](const Result<>& result) mutable {
      inner(result ? check_size(path, size) : result);
    };
  }
  const fscache::CacheState state = find(path)->status().state;
  const bool absent =
      state != fscache::CacheState::kActive && state != fscache::CacheState::kSuspended;
  bool begins = false;
  if (absent && may_bring_online(path)) {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[path];
    begins = !std::exchange(binding.trying, true);
    if (begins) {
      binding.size = size;
      binding.deadline = timers_.schedule(kPatience, [this, path] { on_deadline(path); });
    }
    if (binding.deadline) {  // else it hangs, as the status says already
      binding.waiting.push_back(std::move(ready));
      ready = nullptr;
    }
  }
  if (ready) {
    ready({});
  }
  if (begins) {
    begin(path);
  }
}

void CacheBinder::bring_online_at_start(const std::string& path, std::uint64_t size) {
  {
    const MutexLock lock(mutex_);
    bindings_[path].at_start = true;
  }
  bring_online(path, size, [](const Result<>&) {});
}

struct CacheBinder::Hold {
  HeldSettings settings;
  UniqueFd directory;
  Held done;
  MonotonicTime until;
  std::uint64_t device = 0, inode = 0;  // of the directory, once it was looked at
};

void CacheBinder::expect(const std::string& tag) {
  const bool absent = find(tag)->status().state == fscache::CacheState::kNotPresent;
  const MutexLock lock(mutex_);
  Binding& binding = bindings_[tag];
  if (absent && binding.holder.empty() && binding.trouble.empty()) {
    binding.trouble = fmt::format(
        "nothing is cached yet: no cachefilesd has brought a cache with the tag {} online", tag);
  }
}

void CacheBinder::hold(HeldSettings settings, UniqueFd directory, Held done) {
  auto hold = std::make_shared<Hold>(Hold{std::move(settings), std::move(directory),
                                          std::move(done), clock_.now() + kClosingPatience});
  bool busy = false;
  std::string why_detached;
  {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[hold->settings.tag];
    busy = !binding.holder.empty() || binding.trying;
    why_detached = binding.detached ? binding.trouble : "";
    if (!busy && why_detached.empty()) {
      binding.holder = hold->settings.holder;
      binding.on_detach = std::move(hold->settings.detached);
      binding.path = hold->settings.path;
      binding.trouble.clear();
    }
  }
  if (!why_detached.empty()) {
    hold->done(fail(Errc::kBusy, why_detached));
    return;
  }
  if (busy) {
    hold->done(fail(Errc::kBusy, fmt::format("the cache {} is held by another channel, or is just "
                                             "being brought online",
                                             hold->settings.tag)));
    return;
  }
  pool_->post([this, hold] { try_hold(hold); });
}

void CacheBinder::try_hold(const std::shared_ptr<Hold>& hold) {
  Result<HeldBackend> held = hold_now(*hold);
  const bool closing =
      !held && (held.error().code() == Errc::kBusy ||
                (held.error().code() == Errc::kUnsuitable && may_be_closing(*hold)));
  if (closing && clock_.now() < hold->until) {
    timers_.schedule(kClosingPause,
                     [this, hold] { pool_->post([this, hold] { try_hold(hold); }); });
    return;
  }
  if (!held) {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[hold->settings.tag];
    binding.holder.clear();
    binding.on_detach = nullptr;
    binding.trouble = sentence_for(held.error());
  }
  hold->done(std::move(held));
}

// kBusy: worth trying again.
Result<HeldBackend> CacheBinder::hold_now(Hold& hold) {
  const HeldSettings& settings = hold.settings;
  if (std::optional<HeldBackend> taken = TRY(take_over(hold))) {
    return std::move(*taken);
  }
  cachefiles::CacheOptions options;
  options.tag = settings.tag;
  options.path_for_messages = settings.path;
  options.limits = settings.limits;
  UniqueFd directory(::fcntl(hold.directory.get(), F_DUPFD_CLOEXEC, 0));
  if (!directory.valid()) {
    return fail_errno(errno, settings.path);
  }
  std::unique_ptr<os::Directory> root = TRY(os::adopt_directory(std::move(directory)));
  const os::FileStat stat = TRY(root->stat_self());
  std::unique_ptr<cachefiles::DirectoryCache> backend =
      TRY(cachefiles::bind_cache(std::move(root), *filesystem_, options, clock_));
  backend->set_caretaker(settings.changed);
  return add(settings.tag, stat, std::move(backend));
}

// It has the directory locked then, as another keeper would.
bool CacheBinder::may_be_closing(const Hold& hold) const {
  const MutexLock lock(mutex_);
  bool was_ours = false;
  for (const auto& [tag, binding] : bindings_) {
    if (hold.inode != 0 && binding.device == hold.device && binding.inode == hold.inode) {
      if (!binding.online.expired()) {
        return false;  // in use, under another tag
      }
      was_ours = true;
    }
  }
  return was_ours;
}

// What is online in the same directory under this tag, or would be if its daemon had not ended.
Result<std::optional<HeldBackend>> CacheBinder::take_over(Hold& hold) {
  const HeldSettings& settings = hold.settings;
  const std::unique_ptr<os::Directory> root =
      TRY(os::adopt_directory(UniqueFd(::fcntl(hold.directory.get(), F_DUPFD_CLOEXEC, 0))));
  const os::FileStat stat = TRY(root->stat_self());
  hold.device = stat.device;
  hold.inode = stat.inode;
  HeldBackend held{settings.tag, nullptr, nullptr};
  bool is_same = false;
  {
    const MutexLock lock(mutex_);
    const Binding& binding = bindings_[settings.tag];
    held.online = binding.online.lock();
    held.directory = binding.directory;
    is_same = binding.device == stat.device && binding.inode == stat.inode;
  }
  if (held.online == nullptr) {
    return std::nullopt;
  }
  if (!is_same || !held.online->backend->usable()) {
    return fail(Errc::kBusy,
                fmt::format("files of what was the cache {} before are still open: close them, or "
                            "give another tag",
                            settings.tag));
  }
  TRY(held.directory->set_limits(settings.limits));
  held.directory->set_caretaker(settings.changed);
  const std::shared_ptr<fscache::Cache> cache = find(settings.tag);
  if (cache->leaving() == held.online) {
    TRY(cache->readmit(held.online));
  }
  return held;
}

Result<HeldBackend> CacheBinder::add(const std::string& tag, const os::FileStat& root,
                                     std::unique_ptr<cachefiles::DirectoryCache> backend) {
  cachefiles::DirectoryCache* const directory = backend.get();
  std::shared_ptr<fscache::OnlineBackend> online = TRY(find(tag)->add_backend(std::move(backend)));
  const MutexLock lock(mutex_);
  Binding& binding = bindings_[tag];
  binding.online = online;
  binding.directory = directory;
  binding.device = root.device;
  binding.inode = root.inode;
  return HeldBackend{tag, std::move(online), directory};
}

void CacheBinder::let_go(const std::string& tag) {
  std::string holder;
  std::move_only_function<void()> forgotten;
  {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[tag];
    holder = std::exchange(binding.holder, {});
    forgotten = std::exchange(binding.on_detach, nullptr);
  }
  find(tag)->withdraw(
      [] {}, fmt::format("the cache was taken offline: {} ended; it comes back with the next one",
                         holder));
}

// A cache that is not there has no size: its trouble is told elsewhere.
Result<> CacheBinder::check_size(const std::string& path, std::uint64_t size) {
  const std::optional<fscache::BackendStatus> backend = find(path)->status().backend;
  if (!backend || backend->limit_bytes == size) {
    return {};
  }
  return fail(
      Errc::kUnsuitable,
      fmt::format("the cache {} is in use with a size of {}, not {}: leave the size out, or "
                  "change it after `larder stop`",
                  path, byte_count_text(backend->limit_bytes), byte_count_text(size)));
}

void CacheBinder::begin(const std::string& path) {
  keeper_.open_cache_directory(
      path, [this, path](Result<UniqueFd> directory) { on_directory(path, std::move(directory)); });
}

// The cache may come online later, under mounts that went on without it.
void CacheBinder::on_deadline(const std::string& path) {
  std::vector<Ready> waiting;
  {
    const MutexLock lock(mutex_);
    const auto found = bindings_.find(path);
    if (found == bindings_.end() || !found->second.deadline) {
      return;  // it was tried in the last moment
    }
    Binding& binding = found->second;
    binding.deadline.reset();
    binding.trouble =
        fmt::format("nothing is cached yet: the disk of the cache {} does not answer", path);
    log_error("{}", binding.trouble);
    waiting.swap(binding.waiting);
  }
  for (Ready& ready : waiting) {
    ready({});
  }
}

void CacheBinder::on_directory(const std::string& path, Result<UniqueFd> directory) {
  if (!directory && directory.error().code() == Errc::kTimedOut) {
    // The keeper did not wait any longer; when the disk answers again, somebody must ask.
    timers_.schedule(kPatience, [this, path] { begin(path); });
    return;
  }
  if (!directory) {
    finish(path, fail(directory.error()));
    return;
  }
  // Binding reads the disk: not on the thread that hears the keeper.
  pool_->post([this, path, descriptor = std::move(*directory)]() mutable {
    finish(path, bind(path, std::move(descriptor)));
  });
}

Result<> CacheBinder::bind(const std::string& path, UniqueFd directory) {
  cachefiles::CacheOptions options;
  options.tag = path;
  options.path_for_messages = path;
  {
    const MutexLock lock(mutex_);
    options.limits.size_bytes = bindings_[path].size;
  }
  std::unique_ptr<os::Directory> root = TRY(os::adopt_directory(std::move(directory)));
  const os::FileStat stat = TRY(root->stat_self());
  std::unique_ptr<cachefiles::DirectoryCache> backend =
      TRY(cachefiles::bind_cache(std::move(root), *filesystem_, options, clock_));
  TRY(add(path, stat, std::move(backend)));
  return {};
}

Result<> CacheBinder::detach(const std::string& tag) {
  if (!take_away(tag, detached_sentence(tag))) {
    return fail(Errc::kNotFound,
                fmt::format("there is no cache {}: `larder status` shows the caches, name one by "
                            "its directory or its tag",
                            tag));
  }
  return {};
}

// What is broken is not to be used again before somebody has looked at it: its holder, who would
// bring it online at once, is told so.
void CacheBinder::on_error(const std::string& tag) {
  (void)take_away(tag, find(tag)->status().trouble);
}

bool CacheBinder::take_away(const std::string& tag, const std::string& why) {
  std::move_only_function<void()> tell;
  {
    const MutexLock lock(mutex_);
    const auto found = bindings_.find(tag);
    if (found == bindings_.end()) {
      return false;
    }
    found->second.detached = true;
    found->second.trouble = why;
    tell = std::exchange(found->second.on_detach, nullptr);
  }
  find(tag)->withdraw([] {}, why);
  if (tell) {
    tell();
  }
  return true;
}

Result<> CacheBinder::attach(const std::string& tag) {
  std::uint64_t size = 0;
  {
    const MutexLock lock(mutex_);
    const auto found = bindings_.find(tag);
    if (found == bindings_.end() || !found->second.detached) {
      return fail(Errc::kNotFound, fmt::format("the cache {} is not detached", tag));
    }
    found->second.detached = false;
    found->second.trouble.clear();
    size = found->second.size;
  }
  if (tag.starts_with('/')) {
    // When it has closed its books: its last open file may go later.
    find(tag)->withdraw([this, tag, size] { bring_online(tag, size, [](const Result<>&) {}); });
  }
  return {};
}

bool CacheBinder::may_bring_online(const std::string& tag) const {
  const MutexLock lock(mutex_);
  const auto found = bindings_.find(tag);
  const bool taken =
      found != bindings_.end() && (!found->second.holder.empty() || found->second.detached);
  return !ending_ && !taken;
}

void CacheBinder::finish(const std::string& path, const Result<>& result) {
  const bool refused = !result && result.error().code() == Errc::kUnsuitable;
  std::vector<Ready> waiting;
  std::optional<TimerId> deadline;
  {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[path];
    binding.trying = false;
    waiting.swap(binding.waiting);
    deadline = std::exchange(binding.deadline, std::nullopt);
    if (refused && binding.trouble.empty() && !binding.at_start) {
      bindings_.erase(path);  // no mount goes on with it
    } else {
      binding.trouble = result ? "" : sentence_for(result.error());
    }
  }
  if (deadline) {
    timers_.cancel(*deadline);
  }
  if (!result) {
    log_error("cache {}: {}", path, result.error().message());
  }
  for (Ready& ready : waiting) {
    ready(refused ? result : Result<>());
  }
}

std::vector<CacheBinder::Status> CacheBinder::status() const {
  std::vector<Status> all;
  for (const auto& cache : caches_.all()) {
    Status status{cache->status(), cache->tag(), {}, {}};
    {
      const MutexLock lock(mutex_);
      const auto found = bindings_.find(cache->tag());
      if (found == bindings_.end()) {
        continue;  // the mount that named it was refused
      }
      status.bind_trouble = found->second.trouble;
      status.holder = found->second.holder;
      if (!found->second.path.empty()) {
        status.path = found->second.path;
      }
    }
    all.push_back(std::move(status));
  }
  return all;
}

void CacheBinder::withdraw_all(Duration patience) {
  struct Waiting {
    Mutex mutex{LockRank::kStats};
    CondVar changed;
    std::size_t left GUARDED_BY(mutex) = 0;
  };

  // Shared: a disk that answers too late finds it still there.
  auto waiting = std::make_shared<Waiting>();
  const auto caches = caches_.all();
  {
    const MutexLock lock(mutex_);
    ending_ = true;
  }
  {
    const MutexLock lock(waiting->mutex);
    waiting->left = caches.size();
  }
  for (const auto& cache : caches) {
    cache->withdraw([waiting] {
      const MutexLock lock(waiting->mutex);
      --waiting->left;
      waiting->changed.notify_all();
    });
  }
  const MonotonicTime deadline = clock_.now() + patience;
  const MutexLock lock(waiting->mutex);
  while (waiting->left > 0) {
    if (!waiting->changed.wait_until(waiting->mutex, deadline)) {
      log_warning("{} caches did not go offline in time: after this they count as unclean",
                  waiting->left);
      return;
    }
  }
}

}  // namespace larder::engine
