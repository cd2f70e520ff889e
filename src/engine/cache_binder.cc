#include "engine/cache_binder.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/executor.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/cache.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "handover/engine_end.h"
#include "os/filesystem.h"

namespace larder::engine {

namespace {

constexpr std::size_t kMostQueuedBinds = 64;

std::string sentence_for(const Error& error) {
  return fmt::format("nothing is cached, the cache cannot be used: {}", error.message());
}

}  // namespace

CacheBinder::CacheBinder(Executor& executor, handover::EngineEnd& keeper)
    : keeper_(keeper),
      filesystem_(os::make_posix_filesystem()),
      clock_(executor.clock()),
      caches_(executor),
      pool_(executor.make_pool("cache-bind", 1, kMostQueuedBinds)) {}

CacheBinder::~CacheBinder() = default;

void CacheBinder::bring_online(const std::string& path, Task ready) {
  bool begin = false;
  if (find(path)->status().state != fscache::CacheState::kActive) {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[path];
    binding.waiting.push_back(std::move(ready));
    begin = !std::exchange(binding.trying, true);
    ready = nullptr;
  }
  if (ready) {
    ready();
  } else if (begin) {
    keeper_.open_cache_directory(path, [this, path](Result<UniqueFd> directory) {
      on_directory(path, std::move(directory));
    });
  }
}

void CacheBinder::on_directory(const std::string& path, Result<UniqueFd> directory) {
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
  std::unique_ptr<os::Directory> root = TRY(os::adopt_directory(std::move(directory)));
  std::unique_ptr<fscache::Backend> backend =
      TRY(cachefiles::bind_cache(std::move(root), *filesystem_, options, clock_));
  return caches_.find_or_make(path)->add_backend(std::move(backend));
}

void CacheBinder::finish(const std::string& path, const Result<>& result) {
  std::vector<Task> waiting;
  {
    const MutexLock lock(mutex_);
    Binding& binding = bindings_[path];
    binding.trying = false;
    binding.trouble = result ? "" : sentence_for(result.error());
    waiting.swap(binding.waiting);
  }
  if (!result) {
    log_error("cache {}: {}", path, sentence_for(result.error()));
  }
  for (Task& task : waiting) {
    task();
  }
}

std::vector<CacheBinder::Status> CacheBinder::status() const {
  std::vector<Status> all;
  for (const auto& cache : caches_.all()) {
    Status status{cache->status(), cache->tag(), {}};
    {
      const MutexLock lock(mutex_);
      const auto found = bindings_.find(cache->tag());
      status.bind_trouble = found == bindings_.end() ? "" : found->second.trouble;
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
