#include "engine/cache_binder.h"

#include <algorithm>
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
#include "handover/cache_keeper.h"
#include "os/filesystem.h"

namespace larder::engine {

namespace {

constexpr std::size_t kMostQueuedBinds = 64;
constexpr unsigned kBindThreads = 8;  // a disk that hangs keeps one
// For a cache that closes its books, a holder that is on its way out; and in between.
constexpr std::chrono::seconds kClosingPatience{10};
constexpr std::chrono::seconds kReleasePatience{2};
constexpr std::chrono::milliseconds kClosingPause{50};
// For a mount that waits for its cache; the command line gives up on the mount after 30 s.
constexpr std::chrono::seconds kPatience{10};

std::string sentence_for(const Error& error) {
  return fmt::format("nothing is cached, the cache cannot be used: {}", error.message());
}

// Of one that mounts name by its directory.
std::string sentence_for(const Error& error, const std::string& path) {
  return fmt::format("{}; `larder cache attach {}` tries again", sentence_for(error), path);
}

// Without a holder the cache cares for itself.
void set_caretaker(cachefiles::DirectoryCache& cache, const HeldSettings& settings) {
  if (settings.changed) {
    cache.set_caretaker(settings.changed);
  } else {
    cache.set_caretaker(nullptr);
  }
}

std::string detached_sentence(const std::string& tag) {
  return fmt::format("the cache {0} is detached: `larder cache attach {0}` lets it be used again",
                     tag);
}

}  // namespace

CacheBinder::CacheBinder(Executor& executor, handover::CacheKeeper& keeper,
                         os::Filesystem& filesystem)
    : keeper_(keeper),
      filesystem_(filesystem),
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

// On its way online, for a channel or for the mounts that name it.
struct CacheBinder::Bringing {
  HeldSettings settings;
  UniqueFd directory;
  Held done;
  MonotonicTime until;                  // it waits for others to let go
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
  claim(std::make_shared<Bringing>(Bringing{std::move(settings), std::move(directory),
                                            std::move(done), clock_.now() + kReleasePatience}));
}

// One that was killed lets go when the engine has done the last that it asked for.
void CacheBinder::claim(const BringingRef& hold) {
  const Result<bool> claimed = try_claim(*hold);
  if (!claimed) {
    hold->done(fail(claimed.error()));
  } else if (*claimed) {
    hold->until = clock_.now() + kClosingPatience;
    pool_->post([this, hold] { try_to_bring(hold); });
  } else if (clock_.now() < hold->until) {
    timers_.schedule(kClosingPause, [this, hold] { claim(hold); });
  } else {
    hold->done(
        fail(Errc::kBusy, fmt::format("the cache {} is held by another channel, or is just being "
                                      "brought online: end its cachefilesd first",
                                      hold->settings.tag)));
  }
}

Result<bool> CacheBinder::try_claim(Bringing& hold) {
  const MutexLock lock(mutex_);
  TRY(check_allowed_locked(hold.settings.tag));
  Binding& binding = bindings_[hold.settings.tag];
  if (!binding.holder.empty() || binding.trying) {
    return false;
  }
  binding.holder = hold.settings.holder;
  binding.on_detach = std::move(hold.settings.detached);
  binding.path = hold.settings.path;
  binding.trouble.clear();
  return true;
}

Result<> CacheBinder::check_allowed(const std::string& tag) const {
  const MutexLock lock(mutex_);
  return check_allowed_locked(tag);
}

Result<> CacheBinder::check_allowed_locked(const std::string& tag) const {
  if (ending_) {
    return fail(Errc::kBusy, "the engine ends");
  }
  const auto found = bindings_.find(tag);
  return found != bindings_.end() && found->second.detached
             ? fail(Errc::kBusy, found->second.trouble)
             : Result<>();
}

void CacheBinder::try_to_bring(const BringingRef& bringing) {
  const std::string& tag = bringing->settings.tag;
  {
    const MutexLock lock(mutex_);
    ++bindings_[tag].at_disk;
  }
  // Before it is tried: what has closed meanwhile is not in the way any more.
  bool closing = false;
  const auto look = [&]() -> Result<HeldBackend> {
    UniqueFd directory(::fcntl(bringing->directory.get(), F_DUPFD_CLOEXEC, 0));
    if (!directory.valid()) {
      return fail_errno(errno, bringing->settings.path);
    }
    auto root = TRY(filesystem_.adopt(std::move(directory)));
    const os::FileStat stat = TRY(root->stat_self());
    bringing->device = stat.device;
    bringing->inode = stat.inode;
    closing = is_closing(*bringing);
    return bring(*bringing, std::move(root));
  };
  Result<HeldBackend> held = look();
  {
    const MutexLock lock(mutex_);
    --bindings_[tag].at_disk;
  }
  // It may have been detached meanwhile.
  if (const Result<> allowed = check_allowed(tag); !allowed) {
    held = fail(allowed.error());
    find(tag)->withdraw([] {}, allowed.error().context());
  } else if (!held && closing && clock_.now() < bringing->until) {
    timers_.schedule(kClosingPause, [this, bringing] {
      pool_->post([this, bringing] { try_to_bring(bringing); });
    });
    return;
  }
  if (!held && !bringing->settings.holder.empty()) {
    give_up(tag, held.error());
  }
  bringing->done(std::move(held));
}

void CacheBinder::give_up(const std::string& tag, const Error& error) {
  const MutexLock lock(mutex_);
  Binding& binding = bindings_[tag];
  binding.holder.clear();
  binding.on_detach = nullptr;
  if (!binding.detached) {
    binding.trouble = sentence_for(error);
  }
}

Result<HeldBackend> CacheBinder::bring(const Bringing& bringing,
                                       std::unique_ptr<os::Directory> root) {
  const HeldSettings& settings = bringing.settings;
  TRY(check_allowed(settings.tag));
  if (std::optional<HeldBackend> taken = TRY(take_over(bringing))) {
    return std::move(*taken);
  }
  cachefiles::CacheOptions options;
  options.tag = settings.tag;
  options.path_for_messages = settings.path;
  options.limits = settings.limits;
  std::unique_ptr<cachefiles::DirectoryCache> backend =
      TRY(cachefiles::bind_cache(std::move(root), filesystem_, options, clock_));
  set_caretaker(*backend, settings);
  return add(bringing, std::move(backend));
}

std::vector<std::string> CacheBinder::tags_of(const Bringing& bringing) const {
  const MutexLock lock(mutex_);
  std::vector<std::string> tags;
  for (const auto& [tag, binding] : bindings_) {
    if (binding.inode != 0 && binding.device == bringing.device &&
        binding.inode == bringing.inode) {
      tags.push_back(tag);
    }
  }
  return tags;
}

bool CacheBinder::is_closing(const Bringing& bringing) {
  const auto is_leaving = [this](const std::string& tag) {
    const fscache::CacheStatus status = find(tag)->status();
    return status.present && (status.state == fscache::CacheState::kWithdrawn ||
                              status.state == fscache::CacheState::kError);
  };
  if (std::ranges::any_of(tags_of(bringing), is_leaving)) {
    return true;
  }
  // What the tag was before, in another directory. There only the books are waited for: who has
  // files open may keep them for long.
  const std::string& tag = bringing.settings.tag;
  return was_online(tag) && is_leaving(tag) && find(tag)->leaving() == nullptr;
}

bool CacheBinder::was_online(const std::string& tag) const {
  const MutexLock lock(mutex_);
  const auto found = bindings_.find(tag);
  return found != bindings_.end() && found->second.directory != nullptr;
}

// What is online in the same directory under this tag, or would be if its holder had not ended.
Result<std::optional<HeldBackend>> CacheBinder::take_over(const Bringing& bringing) {
  const HeldSettings& settings = bringing.settings;
  HeldBackend held{settings.tag, nullptr, nullptr};
  bool is_same = false;
  std::string other;
  const auto tags = tags_of(bringing);
  {
    const MutexLock lock(mutex_);
    const Binding& binding = bindings_[settings.tag];
    held.online = binding.online.lock();
    held.directory = binding.directory;
    is_same = binding.device == bringing.device && binding.inode == bringing.inode;
    for (const std::string& tag : tags) {
      if (tag != settings.tag && !bindings_[tag].online.expired()) {
        other = tag;
      }
    }
  }
  if (!other.empty()) {
    // A mount that names it can be told so, and name the other.
    return fail(settings.holder.empty() ? Errc::kUnsuitable : Errc::kBusy,
                fmt::format("the cache in {} is in use already, as {}: give that name",
                            settings.path, other));
  }
  if (held.online == nullptr) {
    if (held.directory != nullptr && find(settings.tag)->status().present) {
      return fail(Errc::kBusy, fmt::format("the disk of what was the cache {} before has not taken "
                                           "all of it yet: try again, or give another tag",
                                           settings.tag));
    }
    return std::nullopt;
  }
  if (!is_same || !held.online->backend->usable()) {
    return fail(Errc::kBusy,
                fmt::format("files of what was the cache {} before are still open: close them, or "
                            "give another tag",
                            settings.tag));
  }
  TRY(held.directory->set_limits(settings.limits));
  set_caretaker(*held.directory, settings);
  const std::shared_ptr<fscache::Cache> cache = find(settings.tag);
  if (cache->leaving() == held.online) {
    TRY(cache->readmit(held.online));
  }
  return held;
}

Result<HeldBackend> CacheBinder::add(const Bringing& bringing,
                                     std::unique_ptr<cachefiles::DirectoryCache> backend) {
  const std::string& tag = bringing.settings.tag;
  cachefiles::DirectoryCache* const directory = backend.get();
  std::shared_ptr<fscache::OnlineBackend> online = TRY(find(tag)->add_backend(std::move(backend)));
  const MutexLock lock(mutex_);
  Binding& binding = bindings_[tag];
  binding.online = online;
  binding.directory = directory;
  binding.device = bringing.device;
  binding.inode = bringing.inode;
  return HeldBackend{tag, std::move(online), directory};
}

// Withdrawn first: the next holder must not find it online, only to lose it.
void CacheBinder::let_go(const std::string& tag) {
  std::string holder;
  {
    const MutexLock lock(mutex_);
    holder = bindings_[tag].holder;
  }
  find(tag)->withdraw(
      [] {}, fmt::format("the cache was taken offline: {} ended; it comes back with the next one",
                         holder));
  std::move_only_function<void()> forgotten;
  const MutexLock lock(mutex_);
  Binding& binding = bindings_[tag];
  binding.holder.clear();
  forgotten = std::exchange(binding.on_detach, nullptr);
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
  {
    const MutexLock lock(mutex_);
    ++bindings_[path].at_disk;
  }
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

void CacheBinder::ask_again(const std::string& path) {
  {
    const MutexLock lock(mutex_);
    if (ending_) {
      return;
    }
    --bindings_[path].at_disk;
  }
  begin(path);
}

void CacheBinder::on_directory(const std::string& path, Result<UniqueFd> directory) {
  if (!directory && directory.error().code() == Errc::kTimedOut) {
    // The keeper does not wait any longer, but is at the disk still; when that answers again,
    // somebody must ask, be it to know that it is free.
    timers_.schedule(kPatience, [this, path] { ask_again(path); });
    return;
  }
  std::uint64_t size = 0;
  {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[path];
    --binding.at_disk;
    size = binding.size;
  }
  if (!directory) {
    finish(path, fail(directory.error()));
    return;
  }
  HeldSettings settings{path, path, {}, {}, {}, {}};
  settings.limits.size_bytes = size;
  const auto done = [this, path](const Result<HeldBackend>& held) {
    finish(path, held ? Result<>() : fail(held.error()));
  };
  // Binding reads the disk: not on the thread that hears the keeper.
  pool_->post([this, bringing = std::make_shared<Bringing>(
                         Bringing{std::move(settings), std::move(*directory), done,
                                  clock_.now() + kClosingPatience})] { try_to_bring(bringing); });
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
  keeper_.report_detached(tag, true);
  find(tag)->withdraw([] {}, why);
  if (tell) {
    tell();
  }
  return true;
}

void CacheBinder::keep_away(const std::string& tag) {
  (void)find(tag);  // so that the status shows it
  const MutexLock lock(mutex_);
  Binding& binding = bindings_[tag];
  binding.detached = true;
  binding.trouble = detached_sentence(tag);
}

Result<> CacheBinder::attach(const std::string& tag) {
  const bool names_directory = tag.starts_with('/');
  std::uint64_t size = 0;
  {
    const MutexLock lock(mutex_);
    const auto found = bindings_.find(tag);
    // What could not be brought online is tried again.
    const bool failed = found != bindings_.end() && names_directory && !found->second.trying &&
                        !found->second.trouble.empty();
    if (found == bindings_.end() || (!found->second.detached && !failed)) {
      return fail(Errc::kNotFound, fmt::format("the cache {} is not detached", tag));
    }
    found->second.detached = false;
    // A channel that has not hung up yet keeps its place.
    const bool of_mounts = names_directory && found->second.holder.empty();
    found->second.trouble = of_mounts ? ""
                                      : fmt::format(
                                            "nothing is cached yet: the cache {} waits for "
                                            "its cachefilesd, which tries again within "
                                            "half a minute",
                                            tag);
    size = found->second.size;
  }
  keeper_.report_detached(tag, false);
  find(tag)->forget_trouble();
  if (names_directory) {
    bring_online(tag, size, [](const Result<>&) {});
  }
  return {};
}

bool CacheBinder::may_bring_online(const std::string& tag) const {
  const MutexLock lock(mutex_);
  const auto found = bindings_.find(tag);
  const bool held = found != bindings_.end() && !found->second.holder.empty();
  return !held && check_allowed_locked(tag);
}

void CacheBinder::finish(const std::string& path, const Result<>& result) {
  const bool refused = !result && result.error().code() == Errc::kUnsuitable;
  std::vector<Ready> waiting;
  std::optional<TimerId> deadline;
  bool later = false;
  {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[path];
    // Files of what was there before are still open.
    later = !result && result.error().code() == Errc::kBusy && !binding.detached && !ending_;
    binding.trying = later;
    waiting.swap(binding.waiting);
    deadline = std::exchange(binding.deadline, std::nullopt);
    if (refused && binding.trouble.empty() && !binding.at_start && binding.online.expired()) {
      bindings_.erase(path);  // no mount goes on with it
    } else if (!binding.detached) {
      binding.trouble = result ? "" : sentence_for(result.error(), path);
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
  if (later) {
    timers_.schedule(kPatience, [this, path] { begin(path); });
  }
}

std::vector<CacheBinder::Status> CacheBinder::status() const {
  std::vector<Status> all;
  for (const auto& cache : caches_.all()) {
    Status status{cache->status(), cache->tag(), {}, {}, false};
    {
      const MutexLock lock(mutex_);
      const auto found = bindings_.find(cache->tag());
      if (found == bindings_.end()) {
        continue;  // the mount that named it was refused
      }
      status.bind_trouble = found->second.trouble;
      status.holder = found->second.holder;
      status.being_bound = found->second.at_disk > 0;
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
