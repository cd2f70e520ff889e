#include "netfs/access_cache.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/mutex.h"
#include "netfs/attributes.h"

namespace larder::netfs {

std::size_t AccessCache::KeyHash::operator()(const Key& key) const {
  constexpr std::size_t kMix = 0x9e3779b97f4a7c15;  // the golden ratio, as in every hash_combine
  std::size_t hash = FileHandleHash()(key.handle);
  const auto mix = [&hash](std::uint32_t value) { hash = (hash ^ value) * kMix; };
  mix(key.credential.uid);
  mix(key.credential.gid);
  for (const std::uint32_t group : key.credential.groups) {
    mix(group);
  }
  return hash;
}

std::optional<std::uint32_t> AccessCache::find(const FileHandle& handle,
                                               const Credential& credential) const {
  const MonotonicTime now = clock_.now();
  const MutexLock lock(mutex_);
  const auto found = entries_.find(Key{handle, credential});
  if (found == entries_.end() || found->second.until < now) {
    return std::nullopt;
  }
  return found->second.granted;
}

void AccessCache::store(const FileHandle& handle, const Credential& credential,
                        std::uint32_t granted) {
  const MonotonicTime until = clock_.now() + kLifetime;
  const MutexLock lock(mutex_);
  if (entries_.size() >= kMostEntries) {
    entries_.clear();
  }
  entries_.insert_or_assign(Key{handle, credential}, Entry{granted, until});
}

}  // namespace larder::netfs
