// NameCache: names with handle and attributes, as listings brought them, for the LOOKUPs that
// follow.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "netfs/attributes.h"
#include "netfs/caller_key.h"
#include "netfs/inode.h"

namespace larder::netfs {

// What a listing says of one name.
struct ListedName {
  FileHandle handle;
  EarlierAttributes said;
};

// A name is good for the caller that listed it, as long as its directory is the version that was
// listed, and no longer than new attributes of its type count as fresh. Bounded; each name is given
// once: the front end remembers it from then on.
// Threads: any.
class NameCache : public std::enable_shared_from_this<NameCache> {
 public:
  static constexpr std::size_t kMostNames = 32768;

  NameCache(Executor& executor, const AttributeTimes& times) : executor_(executor), times_(times) {}

  // A part of a listing of `directory` in the version that `stamps` tell.
  void add(const FileHandle& directory, const Credential& caller, const Attributes& stamps,
           std::vector<std::pair<std::string, ListedName>> names) EXCLUDES(mutex_);
  // What is known of the name in the directory's present version.
  [[nodiscard]] std::optional<ListedName> take(const FileHandle& directory,
                                               const Credential& caller, const Attributes& stamps,
                                               std::string_view name) EXCLUDES(mutex_);
  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);

 private:
  struct Listing {
    CallerKey key;
    Attributes stamps;
    MonotonicTime until;  // nothing of it is good for longer
    std::unordered_map<std::string, ListedName> names;
  };

  using Listings = std::list<Listing>;

  [[nodiscard]] MonotonicTime end_of(const ListedName& name) const;
  Listings::iterator find_or_make(const CallerKey& key, const Attributes& stamps) REQUIRES(mutex_);
  void drop(Listings::iterator listing) REQUIRES(mutex_);
  void drop_old() EXCLUDES(mutex_);
  void arm(MonotonicTime now) REQUIRES(mutex_);

  Executor& executor_;
  const AttributeTimes times_;
  mutable Mutex mutex_{LockRank::kAttributes};
  Listings listings_ GUARDED_BY(mutex_);  // the one that grew last behind the others
  std::unordered_map<CallerKey, Listings::iterator, CallerKeyHash> by_key_ GUARDED_BY(mutex_);
  std::size_t size_ GUARDED_BY(mutex_) = 0;  // of all listings
  bool armed_ GUARDED_BY(mutex_) = false;
};

}  // namespace larder::netfs
