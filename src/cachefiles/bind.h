// Bind: from a directory to a cache that may be used: lock, format, generation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cachefiles/cache.h"
#include "cachefiles/epochs.h"
#include "cachefiles/space.h"
#include "cachefiles/state_file.h"
#include "os/filesystem.h"

namespace larder::cachefiles {

// What bind found and opened.
struct Bound {
  std::unique_ptr<os::Directory> root, cache, maps, meta;
  std::unique_ptr<os::File> lock;  // the cache is ours as long as it is open
  std::unique_ptr<StateFile> state_file;
  CacheState state;                   // the one of this life, with a new generation
  std::vector<PastGenerations> past;  // what counts of former lives
  LastEnd last_end = LastEnd::kClean;
  bool fresh = false;  // the cache was made just now
  Limits limits;
};

// What is asked for, with the default in the place of no size; errors as bind_cache(), about
// `path`.
[[nodiscard]] Result<Limits> limits_of(const Limits& asked, const std::string& path,
                                       os::Directory& root);

// A directory of the cache; made where it is missing.
[[nodiscard]] Result<std::unique_ptr<os::Directory>> open_or_make(os::Directory& parent,
                                                                  std::string_view name);

// As bind_cache. The new generation is not stored yet: nothing may be stamped with it.
[[nodiscard]] Result<Bound> open_cache_directory(std::unique_ptr<os::Directory> root,
                                                 os::Filesystem& filesystem,
                                                 const CacheOptions& options);

}  // namespace larder::cachefiles
