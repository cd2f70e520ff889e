// KnownNames: which file a name was, when we last had to do with it: who is about to remove a name
// must know whether somebody has its file open.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"

namespace larder::netfs {

// Bounded: the oldest names go first, and a name that is not known costs a LOOKUP. What another
// client did to a name meanwhile does no harm: the file that is open here then has lost it already.
// Threads: any.
class KnownNames {
 public:
  static constexpr std::size_t kMostNames = 16384;

  void note(const FileHandle& directory, std::string_view name, const FileHandle& file)
      EXCLUDES(mutex_);
  void forget(const FileHandle& directory, std::string_view name) EXCLUDES(mutex_);
  [[nodiscard]] std::optional<FileHandle> find(const FileHandle& directory,
                                               std::string_view name) const EXCLUDES(mutex_);

 private:
  // The directory's handle and the name behind it, parted by the handle's length.
  [[nodiscard]] static std::string key_of(const FileHandle& directory, std::string_view name);

  mutable Mutex mutex_{LockRank::kStats};
  std::unordered_map<std::string, FileHandle> names_ GUARDED_BY(mutex_);
  std::deque<std::string> order_ GUARDED_BY(mutex_);  // of arrival; may name what is forgotten
};

}  // namespace larder::netfs
