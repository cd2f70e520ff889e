// HiddenNames: the names that files got here because they were removed while open.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"

namespace larder::netfs {

class File;

// They are left out of listings, so that a directory whose files were removed looks as it should,
// and make way when it is removed itself.
// Threads: any.
class HiddenNames {
 public:
  using Name = std::pair<std::string, std::weak_ptr<File>>;

  void add(const FileHandle& directory, const std::string& name, std::weak_ptr<File> file)
      EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    names_[directory].emplace_back(name, std::move(file));
  }

  void remove(const FileHandle& directory, std::string_view name) EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const auto found = names_.find(directory);
    if (found == names_.end()) {
      return;
    }
    std::erase_if(found->second, [name](const Name& each) { return each.first == name; });
    if (found->second.empty()) {
      names_.erase(found);
    }
  }

  // Those in a directory; mostly none.
  [[nodiscard]] std::vector<Name> in(const FileHandle& directory) const EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const auto found = names_.find(directory);
    return found == names_.end() ? std::vector<Name>() : found->second;
  }

  [[nodiscard]] bool contains(const FileHandle& directory, std::string_view name) const
      EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const auto found = names_.find(directory);
    return found != names_.end() && std::ranges::any_of(found->second, [name](const Name& each) {
             return each.first == name;
           });
  }

 private:
  mutable Mutex mutex_{LockRank::kStats};
  std::unordered_map<FileHandle, std::vector<Name>, FileHandleHash> names_ GUARDED_BY(mutex_);
};

}  // namespace larder::netfs
