// KeptDirectories: directories of fan-out that are kept open, of all volumes of a cache together: a
// share with many filesystems has many volumes, and each has 256 of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

class Volume;

// Keeps those that were used last. Threads: any. Life: the cache's.
class KeptDirectories {
 public:
  static constexpr std::size_t kMost = 256;

  using Ref = std::shared_ptr<os::Directory>;

  // Null: not kept.
  [[nodiscard]] Ref find(const Volume& volume, std::uint8_t index) EXCLUDES(mutex_);
  // Keeps `opened`, perhaps in the place of one that was unused longest; who has that one goes on
  // with it.
  void keep(const Volume& volume, std::uint8_t index, Ref opened) EXCLUDES(mutex_);
  void forget(const Volume& volume, std::uint8_t index) EXCLUDES(mutex_);

  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);

 private:
  using Key = std::pair<const Volume*, std::uint8_t>;

  struct Kept {
    Key key;
    Ref directory;
  };

  using Places = std::list<Kept>;

  mutable Mutex mutex_{LockRank::kStats};
  Places by_use_ GUARDED_BY(mutex_);  // used last: first
  std::map<Key, Places::iterator> places_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
