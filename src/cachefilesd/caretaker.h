// Caretaker: what is to be done for a cache now: cull a slice, remove some of what is dead, or
// rest.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/cache_tree.h"
#include "cachefilesd/config.h"
#include "cachefilesd/graveyard.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "culling/large_objects.h"
#include "culling/rotation.h"
#include "os/filesystem.h"

namespace larder::cachefilesd {

// Of one bound cache. Culls while a state line says that objects are to go, by slices, each with a
// fresh line behind it. Once all that is left is in use or pinned it rests until enough came out of
// use, the limits moved, or what asked for room has passed; and then not before ten times as long
// as the last look at everything took. Where culls were refused it says so, and tries again after a
// minute. The dead are removed in steps between slices, and when there is nothing to cull; what
// stays there is looked at again after a minute.
// Threads: one. Life: from a bind to the release.
class Caretaker {
 public:
  struct Settings {
    bool culls = true;
    ResumeThresholds resume;
  };

  enum class Next : std::uint8_t {
    kMore,  // step() again
    kRest,  // until something is heard, or until() has come
  };

  // What it works on; all outlive it.
  struct Parts {
    CacheChannel& channel;
    CacheTree& tree;
    Graveyard& graveyard;
    Waiter& waiter;
    const Clock& clock;
    std::function<os::FileTime()> now;  // the time by which files are stamped
  };

  Caretaker(const Parts& parts, const Settings& settings);

  void set(const Settings& settings) { settings_ = settings; }

  // A state line came.
  void hear(const control::CacheState& state);

  // One piece of work, as long as a slice takes, or less when told to stop. Errors: those of the
  // channel, and kIo of the cache's disk.
  [[nodiscard]] Result<Next> step();

  // When to go on though nothing was heard.
  [[nodiscard]] std::optional<MonotonicTime> until() const;

  [[nodiscard]] const control::CacheState& state() const { return state_; }

 private:
  // A cull is asked for, and there may be something to take.
  [[nodiscard]] bool is_asked() const;
  [[nodiscard]] bool released_enough() const;
  [[nodiscard]] bool keep_going();
  [[nodiscard]] Result<> cull();
  [[nodiscard]] Result<> find_large(std::uint64_t cache_bytes);
  void note_refused(const culling::Outcome& outcome);
  void begin_round();
  void note_exhausted(const culling::Outcome& outcome, MonotonicTime now);
  [[nodiscard]] Result<> look_what_is_left();
  [[nodiscard]] Result<> reap();
  void note_what_stays();
  [[nodiscard]] Result<culling::Share> share();

  Parts parts_;
  Settings settings_;
  control::CacheState state_;
  culling::Rotation rotation_;
  culling::LargeObjects large_;
  std::optional<culling::Share> estimated_;  // of a kernel's cache
  std::optional<Error> failure_;             // of the channel, in keep_going()

  std::optional<Error> refused_;  // why objects were not culled, since one was
  bool exhausted_ = false;        // all that is left is in use or pinned
  std::uint64_t released_files_ = 0, released_blocks_ = 0;  // since this round began
  Duration round_{};          // spent in slices since something was culled, or all was looked at
  MonotonicTime not_before_;  // the next round

  bool graves_ = true;                         // there may be some
  std::optional<MonotonicTime> graves_again_;  // some stay
  bool culled_last_ = false;
};

}  // namespace larder::cachefilesd
