#include "fscache/volume.h"

#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "base/result.h"
#include "fscache/backend.h"
#include "fscache/cache.h"
#include "fscache/cookie.h"

namespace larder::fscache {

std::shared_ptr<Cookie> Volume::acquire_cookie(ObjectDescription description) {
  const std::string key = description.key;
  std::shared_ptr<Cookie> older;
  std::shared_ptr<Cookie> cookie;
  {
    const MutexLock lock(mutex_);
    std::weak_ptr<Cookie>& entry = cookies_[key];
    older = entry.lock();
    if (older != nullptr && older->description().size == description.size &&
        older->description().coherency == description.coherency &&
        older->description().racy == description.racy) {
      return older;
    }
    cookie = std::make_shared<Cookie>(shared_from_this(), std::move(description));
    entry = cookie;
  }
  if (older != nullptr) {
    older->supersede();
  }
  return cookie;
}

void Volume::discard(const std::string& object_key, Cookie::Outcome done) {
  std::shared_ptr<Cookie> cookie;
  {
    const MutexLock lock(mutex_);
    const auto found = cookies_.find(object_key);
    if (found != cookies_.end()) {
      cookie = found->second.lock();
      cookies_.erase(found);
    }
  }
  if (cookie != nullptr) {
    cookie->supersede();
  }
  const std::shared_ptr<OnlineBackend> backend = online();
  if (backend == nullptr) {
    done({});
    return;
  }
  backend->work->run(
      [self = shared_from_this(), backend, object_key]() -> Result<> {
        const std::shared_ptr<Opened> opened = TRY(self->open(backend));
        return opened->volume->discard(object_key);
      },
      std::move(done));
}

Result<std::shared_ptr<Volume::Opened>> Volume::open(const std::shared_ptr<OnlineBackend>& online) {
  {
    const MutexLock lock(mutex_);
    if (auto opened = opened_.lock(); opened != nullptr && opened->online == online) {
      return opened;
    }
  }
  // Two threads may open it at once; the backend shares what must be shared, one of the two is
  // kept.
  std::unique_ptr<BackendVolume> volume = TRY(online->backend->open_volume(key_));
  auto opened = std::make_shared<Opened>(Opened{online, std::move(volume)});
  const MutexLock lock(mutex_);
  if (auto other = opened_.lock(); other != nullptr && other->online == online) {
    return other;
  }
  opened_ = opened;
  return opened;
}

void Volume::forget(const Cookie& cookie) {
  const MutexLock lock(mutex_);
  const auto found = cookies_.find(cookie.description().key);
  if (found != cookies_.end() && found->second.expired()) {
    cookies_.erase(found);
  }
}

std::shared_ptr<OnlineBackend> Volume::online() const {
  return cache_ == nullptr ? nullptr : cache_->online();
}

}  // namespace larder::fscache
