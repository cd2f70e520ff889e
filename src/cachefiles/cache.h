// A cache in a directory: how it is brought online. The format is in docs/on-disk-format.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "cachefiles/space.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

struct CacheOptions {
  std::string tag;
  std::string path_for_messages;
  std::uint64_t size_limit_bytes = 0;  // 0: a tenth of the filesystem, at most 20 GiB
  Percentages blocks;                  // brun, bcull, bstop
  Percentages files;                   // frun, fcull, fstop
  std::size_t most_open_files = 6000;  // descriptors of objects that may be closed when idle
  double least_stamp_seconds = 60;     // a stamp of last use is not written again before
  // What may be used before the state file must say so. A cache that is smaller has its whole limit
  // at once: what it would gain by less, room before it has been counted after a crash, is not
  // worth what a fast reader would bring in vain before the state is stored again.
  std::uint64_t headroom_bytes = std::uint64_t{1} << 30U;
};

// Brings the cache in `root` online: an empty directory is made one, one of ours is locked, its
// format checked, and what a crash may have taken is known from then on.
// Blocks. `filesystem` and `clock` outlive the cache.
// Errors: kUnsuitable (another process has it, not empty and not ours, another format, smaller than
// the size limit), kInvalid (limits that make no sense), kNotSupported (no extended attributes or
// no unnamed files there), kIo; the context is a sentence with the path.
[[nodiscard]] Result<std::unique_ptr<fscache::Backend>> bind_cache(
    std::unique_ptr<os::Directory> root, os::Filesystem& filesystem, const CacheOptions& options,
    const Clock& clock);

}  // namespace larder::cachefiles
