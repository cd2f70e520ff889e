// Rotation: which objects make room. By slices, without a table of everything.
//
// Keys are hashed over the directories of fan-out, so that those with one number, of all volumes,
// are a random sample of the cache. To free something, the next samples in rotation each give their
// share of it, those with the highest score first. Large objects are few, but hold much: they are
// known one by one.
// Pure: stat results in, decisions out. Memory: the candidates of one sample, of some
// that are small, or of a small cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/error.h"
#include "base/result.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "culling/score.h"
#include "os/filesystem.h"

namespace larder::culling {

// No more objects than these are culled at once, of one directory or of several: the one who culls
// them answers for all of them together.
inline constexpr std::size_t kMostInBatch = 256;

// How much there is and how much of it must go.
struct Share {
  std::uint64_t used_bytes = 0;
  std::uint64_t objects = 0;
  std::uint64_t free_bytes = 0;  // to be freed
  std::uint64_t free_files = 0;  // to be freed
};

// What a slice came to.
struct Outcome {
  Freed freed;
  std::uint64_t in_use = 0;      // objects that were seen and are in use
  std::uint64_t pinned = 0;      // objects that were seen and are pinned
  std::optional<Error> refused;  // why one was not culled, if it was neither in use nor gone

  // keep_going() said no: what was asked for is not all freed.
  bool stopped = false;

  // Since something was freed last, or this was said last, every directory was looked at, and
  // nothing could be culled. Come back when something was released.
  bool exhausted = false;
};

// Life: the cache's, its cursor is kept over restarts. Threads: one.
class Rotation {
 public:
  explicit Rotation(std::uint64_t cursor) : cursor_(cursor) {}

  // From now on every directory is to be looked at before a slice says that nothing is left: what
  // was seen until now may have come out of use.
  void begin_round() { in_vain_ = 0; }

  // The sample that is next.
  [[nodiscard]] std::uint64_t cursor() const { return cursor_; }

  // Culls one slice's worth, at most. The caller looks at real use and calls again, unless the
  // outcome says that there is no use in it. `now` and `stamp_seconds` as in score.h.
  // Errors: what FanOut says of a directory, or of all of a cull(); what was freed before counts.
  [[nodiscard]] Result<Outcome> cull_slice(FanOut& fan_out, LargeObjects& large, const Share& share,
                                           os::FileTime now, double stamp_seconds);

  // Seconds since last use of the longest unused object that was seen and stays, or, where all went
  // that was not in use, of the one that was used last of those; 0: none yet.
  [[nodiscard]] double oldest_seconds() const { return oldest_seconds_; }

  // Objects looked at, ever.
  [[nodiscard]] std::uint64_t looked_at() const { return looked_at_; }

 private:
  class Slice;

  [[nodiscard]] Outcome finish(Outcome outcome, const Freed& of_large, double large_part,
                               std::size_t samples);

  std::uint64_t cursor_;
  std::size_t in_vain_ = 0;  // samples, since something could be culled
  double large_ahead_ = 0;   // bytes that large objects gave beyond their share
  double oldest_seconds_ = 0;
  double weight_ = kNeverUsedAgain;  // of what was never used again, in the last samples
  std::uint64_t looked_at_ = 0;
};

// How many of `samples` one slice takes: as many as it needs to free the share, if each gives a
// little less than the quarter that it may lose; all of a small cache. Where more than a quarter of
// the cache must go, each may lose as much, so that it is looked at once.
[[nodiscard]] std::size_t slice_of(std::size_t samples, const Share& share);

// How many of `samples` are judged as one, where each alone holds too few to be like the others.
[[nodiscard]] std::size_t together_of(std::size_t samples, std::uint64_t objects);

}  // namespace larder::culling
