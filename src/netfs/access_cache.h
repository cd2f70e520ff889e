// AccessCache: what the server allowed whom, for a few seconds.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"
#include "netfs/caller_key.h"

namespace larder::netfs {

// Bounded: forgets everything when it is full, which costs a few questions.
// Threads: any.
class AccessCache {
 public:
  static constexpr std::chrono::seconds kLifetime{3};
  static constexpr std::size_t kMostEntries = 16384;

  explicit AccessCache(const Clock& clock) : clock_(clock) {}

  // The granted bits (AccessBits), if they are known and fresh.
  [[nodiscard]] std::optional<std::uint32_t> find(const FileHandle& handle,
                                                  const Credential& credential) const
      EXCLUDES(mutex_);
  void store(const FileHandle& handle, const Credential& credential, std::uint32_t granted)
      EXCLUDES(mutex_);
  // The server let the caller look for a name in this directory: for as long as an answer to ACCESS
  // is believed he may do it again.
  void note_search(const FileHandle& directory, const Credential& credential) EXCLUDES(mutex_);
  [[nodiscard]] bool may_search(const FileHandle& directory, const Credential& credential) const
      EXCLUDES(mutex_);

 private:
  struct Entry {
    std::uint32_t granted = 0;
    MonotonicTime until;
    MonotonicTime search_until;
  };

  Entry& entry_of(const FileHandle& handle, const Credential& credential) REQUIRES(mutex_);

  const Clock& clock_;
  mutable Mutex mutex_{LockRank::kStats};
  std::unordered_map<CallerKey, Entry, CallerKeyHash> entries_ GUARDED_BY(mutex_);
};

}  // namespace larder::netfs
