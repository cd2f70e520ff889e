// LocalTree: the files below one directory, by handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <list>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include <sys/stat.h>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "base/unique_fd.h"
#include "netfs/attributes.h"

namespace larder::localdir {

// What stat says of a file, and the handle that follows from it.
struct FoundFile {
  netfs::FileHandle handle;
  netfs::Attributes attributes;
};

// A file by its name; the descriptor is O_PATH: it names the file and opens nothing.
struct OpenedFile {
  UniqueFd path;
  FoundFile found;
};

// What a handle of this adapter says. Nothing else: a machine remembers a million.
struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t birth = 0;  // nanoseconds, 0 where the filesystem does not tell

  bool operator==(const FileIdentity&) const = default;
};

// Threads: any; every call blocks on the disk, none holds the lock meanwhile.
class LocalTree {
 public:
  // About 220 bytes each. The least recently used go first, so a directory outlives what was found
  // in it.
  static constexpr std::size_t kMostEntries = std::size_t{1} << 20U;
  static constexpr std::size_t kMostNames = 4;  // hard links of a file that are remembered

  // `path` is absolute. Errors are sentences.
  [[nodiscard]] static Result<std::unique_ptr<LocalTree>> open(const std::string& path,
                                                               std::size_t most_entries);

  [[nodiscard]] const FoundFile& root() const { return root_file_; }

  // kStale: not under any name that we know of, or not known at all.
  [[nodiscard]] Result<OpenedFile> find(const netfs::FileHandle& handle) EXCLUDES(mutex_);
  // Looks `name` up in a directory and remembers it. kRemote with the errno.
  [[nodiscard]] Result<OpenedFile> look_up(const UniqueFd& directory,
                                           const netfs::FileHandle& directory_handle,
                                           const std::string& name) EXCLUDES(mutex_);

  // A file was just found, or put, under a name.
  void remember(const netfs::FileHandle& handle, const netfs::FileHandle& directory,
                const std::string& name) EXCLUDES(mutex_);

 private:
  struct Place {
    FileIdentity directory;
    std::string name;

    bool operator==(const Place&) const = default;
  };

  struct Entry {
    FileIdentity file;
    std::vector<Place> places;  // the last one found first
  };

  using EntryRef = std::list<Entry>::iterator;

  // Entries are found by the file that they themselves name.
  struct HashOfFile {
    using is_transparent = void;
    std::size_t operator()(const FileIdentity& file) const noexcept;

    std::size_t operator()(const EntryRef& entry) const noexcept { return (*this)(entry->file); }
  };

  struct SameFile {
    using is_transparent = void;

    bool operator()(const EntryRef& a, const EntryRef& b) const { return a->file == b->file; }

    bool operator()(const FileIdentity& a, const EntryRef& b) const { return a == b->file; }
  };

  LocalTree(UniqueFd root, FoundFile root_file, std::size_t most_entries)
      : root_(std::move(root)), root_file_(root_file), most_entries_(most_entries) {}

  [[nodiscard]] std::vector<std::string> paths_of(const netfs::FileHandle& handle) EXCLUDES(mutex_);
  [[nodiscard]] bool append_path(const Place& place, std::string& path) REQUIRES(mutex_);
  [[nodiscard]] Entry* use(const FileIdentity& file) REQUIRES(mutex_);
  void remember(const FileIdentity& file, Place place) EXCLUDES(mutex_);

  const UniqueFd root_;
  const FoundFile root_file_;
  const std::size_t most_entries_;

  Mutex mutex_{LockRank::kNetwork};
  std::list<Entry> by_use_ GUARDED_BY(mutex_);  // most recently used first
  std::unordered_set<EntryRef, HashOfFile, SameFile> by_file_ GUARDED_BY(mutex_);
};

// The errno of a failed system call, as the adapter's callers get it.
[[nodiscard]] std::unexpected<Error> remote_failure(int error_number, const std::string& what);

// Attributes after the fact, of an open descriptor.
[[nodiscard]] Result<FoundFile> examine(const UniqueFd& descriptor);

}  // namespace larder::localdir
