// CacheFanOut: a cache's directories, as the culler and the count see them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/core.h"
#include "cachefiles/volume.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"

namespace larder::cachefiles {

// The volumes of a cache, open or not; none is ever taken away while it is online.
// Threads: any. Life: the cache's.
class Volumes {
 public:
  // The volume of a key, as it stands in the directory's name.
  [[nodiscard]] Volume& find_or_add(Core& core, std::string_view key) EXCLUDES(mutex_);
  [[nodiscard]] std::size_t size() const EXCLUDES(mutex_);
  [[nodiscard]] Volume& at(std::size_t index) EXCLUDES(mutex_);
  [[nodiscard]] std::size_t open_objects() const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_{LockRank::kCache};
  std::deque<std::unique_ptr<Volume>> volumes_ GUARDED_BY(mutex_);
};

// Directory i is fan-out i % 256 of volume i / 256. Threads: one.
class CacheFanOut final : public culling::FanOut {
 public:
  CacheFanOut(Core& core, Volumes& volumes) : core_(core), volumes_(volumes) {}

  std::size_t directories() override;
  Result<> list(std::size_t directory,
                const std::function<bool(culling::Candidate&&)>& visit) override;
  bool in_use(std::size_t directory, std::string_view name) override;
  Result<std::vector<Result<culling::Freed>>> cull(
      std::span<const culling::Placed> objects) override;
  Result<culling::Candidate> look_at(std::size_t directory, std::string_view name) override;
  // Until enough is free, or the cache was given up.
  bool keep_going() override;

  // The number of "Ikey/@3f"; nullopt: the cache has no such volume, or it is no directory of
  // fan-out.
  [[nodiscard]] std::optional<std::size_t> find(std::string_view directory);
  // Takes names out of the cache, each with an answer: the bytes given back; kBusy: in use;
  // kNotFound: gone. May be called beside the thread that maintains.
  [[nodiscard]] Result<std::vector<Result<std::uint64_t>>> cull_names(
      std::size_t directory, std::span<const std::string> names);

  // Counts one directory into the round of the accounts, and removes map logs without an object.
  // Its large objects become known.
  [[nodiscard]] Result<> count(std::size_t directory, culling::LargeObjects& large,
                               std::uint64_t large_from);

  // Finds large objects: only they have map logs. Looks at the directories that were neither
  // counted nor looked at yet: at one, and then at others until `is_enough`.
  [[nodiscard]] Result<> find_large(culling::LargeObjects& large, std::uint64_t large_from,
                                    const std::function<bool()>& is_enough);

 private:
  struct Tally {
    std::uint64_t bytes = 0;
    std::uint64_t objects = 0;
  };

  // A directory of fan-out, open for culls.
  struct Place {
    Volume& volume;
    std::uint8_t index;
    OpenFanOut directories;
  };

  // `count`: names that are to be removed there.
  [[nodiscard]] Result<Place> open_place(std::size_t directory, std::size_t count);
  [[nodiscard]] Result<culling::Freed> cull_one(const Place& place,
                                                const culling::Candidate& object);
  [[nodiscard]] Result<std::uint64_t> cull_name(const Place& place, std::string_view name);
  // By the holder of the claim.
  [[nodiscard]] Result<culling::Freed> remove_claimed(const Place& place, std::string_view name);
  [[nodiscard]] Result<Tally> tally(std::size_t directory, culling::LargeObjects& large,
                                    std::uint64_t large_from);
  [[nodiscard]] Result<std::uint64_t> tally_maps(Volume& volume, std::uint8_t index);
  [[nodiscard]] Result<> find_large_in(std::size_t directory, culling::LargeObjects& large,
                                       std::uint64_t large_from);
  void reap_orphan(Volume& volume, std::uint8_t index, std::string_view name);

  Core& core_;
  Volumes& volumes_;
};

}  // namespace larder::cachefiles
