// FanOut: a cache's directories as the culler sees them.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "culling/candidate.h"

namespace larder::culling {

// Over so many directories each volume spreads its objects, by a hash of their keys.
inline constexpr std::size_t kSamples = 256;

// An object that might be culled, and the directory that it is in.
struct Placed {
  std::size_t directory = 0;
  Candidate candidate;
};

// The directories of all volumes: directory d is number d % kSamples of volume d / kSamples, and
// new volumes come at the end. Those with one number, of all volumes, hold a random sample of the
// cache. Threads: the caller's. All but keep_going() may block, on a disk or on who owns the cache.
class FanOut {
 public:
  FanOut() = default;
  FanOut(const FanOut&) = delete;
  FanOut& operator=(const FanOut&) = delete;
  virtual ~FanOut() = default;

  [[nodiscard]] virtual std::size_t directories() = 0;

  // A hint: these are listed next, in this order, once what is culled until then has gone. None:
  // what was expected is not listed.
  virtual void expect(std::span<const std::size_t> /*directories*/) {}

  // Calls `visit` for every object of a directory until it says false. One that is not there has
  // none.
  [[nodiscard]] virtual Result<> list(std::size_t directory,
                                      const std::function<bool(Candidate&&)>& visit) = 0;

  // A hint that spares asking for its cull. False where it is not known: cull() decides.
  [[nodiscard]] virtual bool in_use(std::size_t directory, std::string_view name) = 0;

  // Takes objects out of the cache, and answers for each, in their order: what it gave back, or why
  // not. Those of one directory stand together. kBusy: it is in use, or was used since it was
  // listed; kNotFound: it is gone. Errors: nothing more can be culled, now.
  [[nodiscard]] virtual Result<std::vector<Result<Freed>>> cull(
      std::span<const Placed> objects) = 0;

  // As stat now; kNotFound when it is gone.
  [[nodiscard]] virtual Result<Candidate> look_at(std::size_t directory, std::string_view name) = 0;

  // False: stop, we are to end, or use says that it is enough. Asked before each directory and each
  // cull(), and a few times in a large directory; cheap, and does not block.
  [[nodiscard]] virtual bool keep_going() = 0;
};

// How many of `objects`, from the first on, are in one directory.
[[nodiscard]] inline std::size_t run_of(std::span<const Placed> objects) {
  std::size_t count = 0;
  while (count < objects.size() && objects[count].directory == objects[0].directory) {
    ++count;
  }
  return count;
}

}  // namespace larder::culling
