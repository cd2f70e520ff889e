// Rotation: which objects make room. By slices, without a table of everything.
//
// Keys are hashed over the directories of fan-out, so that each directory is a random sample of the
// cache. To free something, the next directories in rotation each give their share of it, those
// with the highest score first. Large objects are few, but hold much: they are known one by one.
// Pure: stat results in, decisions out. Memory: one directory's candidates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "os/filesystem.h"

namespace larder::culling {

// How much there is and how much of it must go.
struct Share {
  std::uint64_t used_bytes = 0;
  std::uint64_t objects = 0;
  std::uint64_t free_bytes = 0;  // to be freed
  std::uint64_t free_files = 0;  // to be freed
};

// Life: the cache's, its cursor is kept over restarts. Threads: one.
class Rotation {
 public:
  explicit Rotation(std::uint64_t cursor) : cursor_(cursor) {}

  [[nodiscard]] std::uint64_t cursor() const { return cursor_; }

  // Culls one slice's worth, at most. Returns what it freed; the caller looks at real use and calls
  // again. `now` and `stamp_seconds` as in score().
  [[nodiscard]] Result<Freed> cull_slice(FanOut& fan_out, LargeObjects& large, const Share& share,
                                         os::FileTime now, double stamp_seconds);

  // Seconds since last use of the longest unused object that was seen and stays; 0: none yet.
  [[nodiscard]] double oldest_seconds() const { return oldest_seconds_; }

  // Directories looked at and objects looked at, ever.
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }

 private:
  struct Due;

  Result<Freed> cull_large(FanOut& fan_out, LargeObjects& large, Due& due);
  Result<Freed> cull_directories(FanOut& fan_out, std::size_t begin, std::size_t count, Due& due);

  std::uint64_t cursor_;
  double oldest_seconds_ = 0;
  std::uint64_t looked_at_ = 0;
};

// How many of `directories` one slice takes.
[[nodiscard]] std::size_t slice_of(std::size_t directories, const Share& share);

}  // namespace larder::culling
