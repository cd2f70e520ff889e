// Volume: the cookies of one server share, in one cache, under one key.
//
// The backend's side of a volume is opened when the first cookie needs it, and again when the cache
// went offline and came back.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "fscache/cookie.h"

namespace larder::fscache {

// Threads: any. Life: shared by its cookies and by netfs; goes before its cache.
class Volume : public std::enable_shared_from_this<Volume> {
 public:
  // `cache` may be null: nothing is cached then.
  Volume(std::shared_ptr<Cache> cache, std::string key)
      : cache_(std::move(cache)), key_(std::move(key)) {}

  [[nodiscard]] const std::string& key() const { return key_; }

  // The cookie of this version of the file; a cookie of another version of the same key is
  // superseded, because the server has moved on.
  [[nodiscard]] std::shared_ptr<Cookie> acquire_cookie(ObjectDescription description)
      EXCLUDES(mutex_);
  // Takes what is kept under the key out of the cache; its cookie is superseded. `done` on a disk
  // thread, or at once without a cache.
  void discard(const std::string& object_key, Cookie::Outcome done) EXCLUDES(mutex_);

 private:
  friend class Cookie;

  // An open backend volume; holds its cache online.
  struct Opened {
    std::shared_ptr<OnlineBackend> online;
    std::unique_ptr<BackendVolume> volume;
  };

  // Blocks; on a disk thread only.
  [[nodiscard]] Result<std::shared_ptr<Opened>> open(const std::shared_ptr<OnlineBackend>& online)
      EXCLUDES(mutex_);
  void forget(const Cookie& cookie) EXCLUDES(mutex_);
  [[nodiscard]] std::shared_ptr<OnlineBackend> online() const;

  const std::shared_ptr<Cache> cache_;
  const std::string key_;
  mutable Mutex mutex_{LockRank::kVolume};
  std::unordered_map<std::string, std::weak_ptr<Cookie>> cookies_ GUARDED_BY(mutex_);
  std::weak_ptr<Opened> opened_ GUARDED_BY(mutex_);
};

}  // namespace larder::fscache
