// WorkingDirectory: where in a cache a process stands. The kernel's cull and inuse name what lies
// there; a process may stand anywhere, so nothing is believed of a path but where to look.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "os/filesystem.h"

namespace larder::device {

enum class PlaceKind : std::uint8_t {
  kFanOut,  // cache/Ivolume/@xx: objects
  kAbove,   // the root, cache/ or a volume: what lies there is in use as long as the cache is
  kDead,    // removed, or in the graveyard
};

struct WorkingPlace {
  PlaceKind kind = PlaceKind::kDead;
  std::string path;                          // of kFanOut, below cache/: "Ivolume/@3f"
  std::unique_ptr<os::Directory> directory;  // of kFanOut and kAbove
};

// The working directory of a process: a descriptor to look at, not to read from.
[[nodiscard]] Result<UniqueFd> open_working_directory(std::uint32_t pid);

// By which path it was opened.
[[nodiscard]] Result<std::string> path_of(const UniqueFd& directory);

// The place of `directory` in the cache at `root`: what its path says leads beneath `root`, over no
// symbolic link and no mount, to the same directory. kIo: it is nowhere in that cache.
[[nodiscard]] Result<WorkingPlace> find_place(UniqueFd directory, os::Directory& root);

}  // namespace larder::device
