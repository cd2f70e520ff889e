// A cache in a directory: how it is brought online. The format is in docs/on-disk-format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cachefiles/caretaker.h"
#include "cachefiles/space.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

struct CacheOptions {
  std::string tag;
  std::string path_for_messages;
  Limits limits;                       // size_bytes 0: a tenth of the filesystem, at most 20 GiB
  std::size_t most_open_files = 6000;  // descriptors of objects that may be closed when idle
  double least_stamp_seconds = 60;     // a stamp of last use is not written again before
  // What may be used before the state file must say so. A cache that is smaller has its whole limit
  // at once: what it would gain by less, room before it has been counted after a crash, is not
  // worth what a fast reader would bring in vain before the state is stored again.
  std::uint64_t headroom_bytes = std::uint64_t{1} << 30U;
};

// What a caretaker is told.
struct CareState {
  SpaceState space;
  bool graveyard = false;    // there is something in it
  std::uint64_t buried = 0;  // ever; more than last time: news, though one may have stayed
  std::uint64_t released_objects = 0;  // since take_released()
};

// What became of an object that was to be culled.
using Culled = Result<std::uint64_t>;  // bytes given back; kBusy: in use; kNotFound: gone

// A cache in a directory. It culls and empties its graveyard by itself, until a caretaker takes
// that over. Threads: any, for the calls of the caretaker too, but one of them at a time.
class DirectoryCache : public fscache::Backend {
 public:
  // ---- From memory.

  // Calls `changed`, from any thread, when care_state() may have news. Empty: the cache cares for
  // itself again.
  virtual void set_caretaker(std::move_only_function<void()> changed) = 0;
  [[nodiscard]] virtual Released take_released() = 0;
  // Age of the object that is unused longest, as the caretaker found: times of last use are written
  // the more rarely the greater it is.
  virtual void set_oldest(double seconds) = 0;

  // ---- Block.

  // size_bytes 0: the default. From now on; what is over them is to be culled. Errors as
  // bind_cache().
  [[nodiscard]] virtual Result<> set_limits(const Limits& limits) = 0;
  // Looks at the filesystem and into the graveyard.
  [[nodiscard]] virtual Result<CareState> care_state() = 0;
  // `directory` below cache/, as "Ikey/@3f"; an answer for each name. kInvalid: no such directory
  // can be.
  [[nodiscard]] virtual Result<std::vector<Culled>> cull(std::string_view directory,
                                                         std::span<const std::string> names) = 0;
  // kNotFound: there is no such object.
  [[nodiscard]] virtual Result<bool> in_use(std::string_view directory, std::string_view name) = 0;
};

// Brings the cache in `root` online: an empty directory is made one, one of ours is locked, its
// format checked, and what a crash may have taken is known from then on.
// Blocks. `filesystem` and `clock` outlive the cache.
// Errors: kUnsuitable (another process has it, not empty and not ours, another format, smaller than
// the size limit), kInvalid (limits that make no sense), kNotSupported (no extended attributes or
// no unnamed files there), kIo; the context is a sentence with the path.
[[nodiscard]] Result<std::unique_ptr<DirectoryCache>> bind_cache(
    std::unique_ptr<os::Directory> root, os::Filesystem& filesystem, const CacheOptions& options,
    const Clock& clock);

}  // namespace larder::cachefiles
