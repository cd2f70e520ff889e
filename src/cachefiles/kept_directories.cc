#include "cachefiles/kept_directories.h"

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/mutex.h"

namespace larder::cachefiles {

KeptDirectories::Ref KeptDirectories::find(const Volume& volume, std::uint8_t index) {
  const MutexLock lock(mutex_);
  const auto found = places_.find({&volume, index});
  if (found == places_.end()) {
    return nullptr;
  }
  by_use_.splice(by_use_.begin(), by_use_, found->second);
  return found->second->directory;
}

void KeptDirectories::keep(const Volume& volume, std::uint8_t index, Ref opened) {
  const Key key{&volume, index};
  Ref closed;  // behind the lock
  const MutexLock lock(mutex_);
  if (const auto found = places_.find(key); found != places_.end()) {
    closed = std::exchange(found->second->directory, std::move(opened));
    return;
  }
  by_use_.push_front({key, std::move(opened)});
  places_[key] = by_use_.begin();
  if (by_use_.size() > kMost) {
    closed = std::move(by_use_.back().directory);
    places_.erase(by_use_.back().key);
    by_use_.pop_back();
  }
}

void KeptDirectories::forget(const Volume& volume, std::uint8_t index) {
  Ref closed;
  const MutexLock lock(mutex_);
  const auto found = places_.find({&volume, index});
  if (found == places_.end()) {
    return;
  }
  closed = std::move(found->second->directory);
  by_use_.erase(found->second);
  places_.erase(found);
}

std::size_t KeptDirectories::size() const {
  const MutexLock lock(mutex_);
  return by_use_.size();
}

}  // namespace larder::cachefiles
