// Accounts: whose bytes the used ones are, so that a count of the directories can correct the total
// while the cache is in use.
#pragma once

#include <cstdint>
#include <optional>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/space.h"

namespace larder::cachefiles {

// What is known of one directory of fan-out. Guarded by Accounts.
struct DirectoryAccount {
  std::uint64_t changes = 0;  // made to it since bind
  std::uint32_t round = 0;    // the round of counting that last counted it
  // Blocks of the directory itself and of its map directory. nullopt: nobody has looked since bind;
  // if it is there, it is among the used bytes.
  std::optional<std::uint64_t> own_bytes, map_bytes;
};

// Each byte in use belongs to a directory (what has a name there) or to none (open files without a
// name; what is reserved for them). A null directory means none.
// Threads: any, under an object's lock too. Life: the cache's.
class Accounts {
 public:
  explicit Accounts(Space& space) : space_(space) {}

  [[nodiscard]] Result<> reserve(DirectoryAccount* directory, std::uint64_t bytes) EXCLUDES(mutex_);
  void change(DirectoryAccount* directory, std::int64_t bytes, std::int64_t objects)
      EXCLUDES(mutex_);
  // An open file got or lost its name.
  void linked(DirectoryAccount& directory, std::uint64_t bytes) EXCLUDES(mutex_);
  void unlinked(DirectoryAccount& directory, std::uint64_t bytes) EXCLUDES(mutex_);
  // The directory itself, or its map directory, has this many bytes now.
  void directory_itself(DirectoryAccount& directory, std::uint64_t bytes, bool map_directory)
      EXCLUDES(mutex_);
  // It was not there, and was made: directory_itself() says how large it is.
  void directory_made(DirectoryAccount& directory, bool map_directory) EXCLUDES(mutex_);
  // It is about to be removed, and has this many bytes. Where it turns out that it stays,
  // directory_itself() takes that back.
  void directory_goes(DirectoryAccount& directory, std::uint64_t bytes, bool map_directory)
      EXCLUDES(mutex_);

  // ---- A round of counting, by one thread: changes_of, look at the directory, counted; again when
  // that says false (somebody changed it); finish_round when every directory is through.

  void begin_round() EXCLUDES(mutex_);
  [[nodiscard]] std::uint64_t changes_of(const DirectoryAccount& directory) const EXCLUDES(mutex_);
  [[nodiscard]] bool counted(DirectoryAccount& directory, std::uint64_t changes_before,
                             std::uint64_t bytes, std::uint64_t objects) EXCLUDES(mutex_);
  // `fixed_bytes`: of what lies outside the directories of fan-out.
  void finish_round(std::uint64_t fixed_bytes) EXCLUDES(mutex_);

 private:
  void note(DirectoryAccount* directory, std::int64_t bytes, std::int64_t objects) REQUIRES(mutex_);
  // From `before` bytes of the directory itself to `after`.
  void settle(DirectoryAccount& directory, std::uint64_t before, std::uint64_t after)
      REQUIRES(mutex_);

  Space& space_;
  mutable Mutex mutex_{LockRank::kCache};
  std::int64_t nameless_ GUARDED_BY(mutex_) = 0;
  std::uint32_t round_ GUARDED_BY(mutex_) = 0;
  std::int64_t round_bytes_ GUARDED_BY(mutex_) = 0;
  std::int64_t round_objects_ GUARDED_BY(mutex_) = 0;
};

}  // namespace larder::cachefiles
