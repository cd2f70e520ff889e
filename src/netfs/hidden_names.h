// HiddenNames: the names that files got here because they were removed while open.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"
#include "netfs/hidden_name_store.h"

namespace larder::netfs {

class File;

// They are left out of listings, so that a directory whose files were removed looks as it should,
// and make way when it is removed itself. A store keeps them for who comes after us: from before
// the server has such a name until it has it no more.
// Threads: any.
class HiddenNames {
 public:
  using Name = std::pair<std::string, std::weak_ptr<File>>;

  // Before the first name; without one they are forgotten with us.
  void set_store(std::unique_ptr<HiddenNameStore> store) { store_ = std::move(store); }

  // What was left by mounts of this share that are over.
  [[nodiscard]] std::vector<LeftName> adopt_left();

  // The server is about to be asked for a name.
  void announce(const LeftName& name);
  // It has not got it, or not any more.
  void forget(const FileHandle& directory, std::string_view name);

  // A file has this name now.
  void add(const FileHandle& directory, const std::string& name, std::weak_ptr<File> file)
      EXCLUDES(mutex_);
  // Nobody here is concerned with it any more; the store is, until forget().
  void remove(const FileHandle& directory, std::string_view name) EXCLUDES(mutex_);

  // Those in a directory; mostly none.
  [[nodiscard]] std::vector<Name> in(const FileHandle& directory) const EXCLUDES(mutex_);
  [[nodiscard]] bool contains(const FileHandle& directory, std::string_view name) const
      EXCLUDES(mutex_);
  // Of all directories.
  [[nodiscard]] std::vector<std::shared_ptr<File>> files() const EXCLUDES(mutex_);
  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);

 private:
  std::unique_ptr<HiddenNameStore> store_;  // may be null
  mutable Mutex mutex_{LockRank::kStats};
  std::unordered_map<FileHandle, std::vector<Name>, FileHandleHash> names_ GUARDED_BY(mutex_);
};

}  // namespace larder::netfs
