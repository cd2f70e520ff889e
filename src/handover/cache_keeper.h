// CacheKeeper: what the keeper does for caches.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder::handover {

// Threads: any. Life: outlives who asks.
class CacheKeeper {
 public:
  CacheKeeper() = default;
  CacheKeeper(const CacheKeeper&) = delete;
  CacheKeeper& operator=(const CacheKeeper&) = delete;
  virtual ~CacheKeeper() = default;

  // The directory of a cache, made ours if it is empty; errors are sentences. The keeper opens only
  // what a mount that it handed over names as its cache. `done` runs once, perhaps before the call
  // returns, and must not wait. kTimedOut: the keeper is at the disk still.
  virtual void open_cache_directory(const std::string& path,
                                    std::move_only_function<void(Result<UniqueFd>)> done) = 0;
  // A cache that the next engine's HELLO shall name, or not any more.
  virtual void report_detached(const std::string& tag, bool detached) = 0;
};

}  // namespace larder::handover
