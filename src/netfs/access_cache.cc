#include "netfs/access_cache.h"

#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "base/mutex.h"
#include "netfs/adapter.h"
#include "netfs/attributes.h"

namespace larder::netfs {

std::optional<std::uint32_t> AccessCache::find(const FileHandle& handle,
                                               const Credential& credential) const {
  const MonotonicTime now = clock_.now();
  const MutexLock lock(mutex_);
  const auto found = entries_.find({handle, credential});
  if (found == entries_.end() || found->second.until < now) {
    return std::nullopt;
  }
  return found->second.granted;
}

void AccessCache::store(const FileHandle& handle, const Credential& credential,
                        std::uint32_t granted) {
  const MonotonicTime until = clock_.now() + kLifetime;
  const MutexLock lock(mutex_);
  Entry& entry = entry_of(handle, credential);
  entry.granted = granted;
  entry.until = until;
  entry.search_until = (granted & kAccessLookup) != 0 ? until : MonotonicTime{};
}

void AccessCache::note_search(const FileHandle& directory, const Credential& credential) {
  const MonotonicTime until = clock_.now() + kLifetime;
  const MutexLock lock(mutex_);
  entry_of(directory, credential).search_until = until;
}

bool AccessCache::may_search(const FileHandle& directory, const Credential& credential) const {
  const MonotonicTime now = clock_.now();
  const MutexLock lock(mutex_);
  const auto found = entries_.find({directory, credential});
  return found != entries_.end() && found->second.search_until > now;
}

AccessCache::Entry& AccessCache::entry_of(const FileHandle& handle, const Credential& credential) {
  if (entries_.size() >= kMostEntries) {
    entries_.clear();
  }
  return entries_[{handle, credential}];
}

}  // namespace larder::netfs
