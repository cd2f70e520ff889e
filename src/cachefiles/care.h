// Care: what a caretaker outside of the engine asks of a cache (DirectoryCache).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/thread_annotations.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fan_out.h"
#include "cachefiles/core.h"

namespace larder::cachefiles {

// Life: the cache's. Threads: one at a time, beside the one that maintains; note_news() is that
// one's.
class Care {
 public:
  Care(Core& core, Volumes& volumes) : core_(core), fan_out_(core, volumes) {}

  // As in DirectoryCache.
  [[nodiscard]] Result<CareState> state() EXCLUDES(mutex_);
  [[nodiscard]] Result<std::vector<Culled>> cull(std::string_view directory,
                                                 std::span<const std::string> names);
  [[nodiscard]] Result<bool> in_use(std::string_view directory, std::string_view name);

  // The filesystem was looked at: tells the caretaker when it should look, too.
  void note_news() EXCLUDES(mutex_);

 private:
  struct Told {
    bool culling = false, stopped = false, graves = false;
    std::uint64_t buried = 0;

    friend bool operator==(const Told&, const Told&) = default;
  };

  [[nodiscard]] Result<std::size_t> find(std::string_view directory);
  // False also where nobody can look: that costs the state nothing.
  [[nodiscard]] bool has_graves();

  Core& core_;
  CacheFanOut fan_out_;
  Mutex mutex_{LockRank::kCare};
  std::optional<Told> told_ GUARDED_BY(mutex_);
};

}  // namespace larder::cachefiles
