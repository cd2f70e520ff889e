// OpenFiles: bounds the descriptors of backing files. An open object may lose its descriptor while
// nobody uses it, and gets it back by name, if that still is the same file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

class OpenFiles;

// A file of an object. Where the filesystem is read-only it can be read; whoever would fill, seal
// or stamp it is refused.
[[nodiscard]] Result<std::unique_ptr<os::File>> open_to_use(os::Directory& directory,
                                                            std::string_view name);

// One object's backing file, open or not. Guarded by the table's lock.
// Threads: any. Life: the object's; closed before it is destroyed.
class BackingFile {
 public:
  explicit BackingFile(OpenFiles& table) : table_(table) {}

  BackingFile(const BackingFile&) = delete;
  BackingFile& operator=(const BackingFile&) = delete;

  ~BackingFile() { close(); }

  // Takes an open file that cannot be found again by a name.
  void set(std::shared_ptr<os::File> file);
  // It has this name now: the descriptor may be closed and opened again.
  void set_name(std::shared_ptr<os::Directory> directory, std::string name,
                const os::FileStat& stat);
  // The name is about to go: opens the file if it is closed, and keeps it open.
  [[nodiscard]] Result<> keep_open();
  void close();

  // The open file, opened again if need be. kStale: the name is another file's now.
  [[nodiscard]] Result<std::shared_ptr<os::File>> get();
  // From memory; null while it is not open.
  [[nodiscard]] std::shared_ptr<os::File> if_open();

 private:
  friend class OpenFiles;

  OpenFiles& table_;
  // All guarded by the table's mutex.
  std::shared_ptr<os::File> file_;
  std::shared_ptr<os::Directory> directory_;
  std::string name_;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
  std::size_t slot_ = SIZE_MAX;  // in the table, while the file may be closed
  bool used_ = false;            // since the hand last passed
};

// Life: the cache's. Threads: any.
class OpenFiles {
 public:
  explicit OpenFiles(std::size_t most) : most_(most) {}

  [[nodiscard]] std::size_t closable() const EXCLUDES(mutex_);

 private:
  friend class BackingFile;

  void enlist(BackingFile& file) REQUIRES(mutex_);
  void strike_off(BackingFile& file) REQUIRES(mutex_);
  // Second chance: the hand closes the first one that was not used since it last passed.
  [[nodiscard]] std::vector<std::shared_ptr<os::File>> surplus() REQUIRES(mutex_);

  const std::size_t most_;
  mutable Mutex mutex_{LockRank::kCache};
  std::vector<BackingFile*> closable_ GUARDED_BY(mutex_);
  std::size_t hand_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::cachefiles
