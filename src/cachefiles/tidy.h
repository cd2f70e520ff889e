// Tidy: finds what has no business in the directories of a cache, and buries it; directories that
// hold nothing it removes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"
#include "cachefiles/cache_fan_out.h"
#include "cachefiles/core.h"
#include "cachefiles/volume.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// Looks at every directory below cache/ and maps/, in rounds: when it is asked, and every hour, but
// for at most a hundredth of the time. Names are looked at, never followed. Where something was
// found the books may be wrong, too: it counts as damage, after which all is counted anew. What
// cannot be buried stays, and is found by the next round again. A directory that looks like a
// volume's is one from then on. The directories of fan-out that are empty go, and so does a
// volume's that nobody uses; whoever puts something there makes them again.
// Threads: the one that maintains. Life: the cache's, from when its directories are open.
class Tidy {
 public:
  Tidy(Core& core, Volumes& volumes);

  // A round is wanted: room is short, or something was found that should not be there.
  void ask() { asked_ = true; }

  // Blocks for some 20 ms. False: there was nothing to do.
  bool work();

 private:
  // What may stand in a directory.
  enum class Level : std::uint8_t { kVolumes, kFanOuts, kObjects };

  [[nodiscard]] bool is_due(MonotonicTime now) const;
  // The next of: the top, and for each volume those of its fan-out, and its own directory.
  void look_at(std::size_t part);
  void look_at_volume(Volume& volume);
  void look_at_fan_out(Volume& volume, std::uint8_t index);
  // `volume`: whose fan-out it is; null: it is above. True: nothing was in it.
  bool sweep(os::Directory& directory, Level level, Volume* volume);
  bool remove_directory(os::Directory& parent, const std::string& name);
  void adopt(std::string_view name);
  [[nodiscard]] Result<> bury(os::Directory& directory, Level level, Volume* volume,
                              std::string_view name);
  [[nodiscard]] Result<> bury_claimed(os::Directory& directory, Volume& volume,
                                      std::string_view name);
  [[nodiscard]] Result<> take_away(os::Directory& directory, std::string_view name);

  Core& core_;
  Volumes& volumes_;
  bool asked_ = false;
  std::optional<std::size_t> next_;  // part of the round under way
  Duration worked_{};                // in it
  MonotonicTime not_before_, again_;
};

}  // namespace larder::cachefiles
