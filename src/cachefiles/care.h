// Care: what a caretaker outside of the engine asks of a cache (DirectoryCache).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
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
  [[nodiscard]] Result<CareState> state();
  [[nodiscard]] Result<std::vector<Culled>> cull(std::string_view directory,
                                                 std::span<const std::string> names);
  [[nodiscard]] Result<bool> in_use(std::string_view directory, std::string_view name);

  // The filesystem was looked at: tells the caretaker when it should look, too.
  void note_news();

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
  std::optional<Told> told_;
};

}  // namespace larder::cachefiles
