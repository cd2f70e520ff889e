// FanOut: a cache's directories as the culler sees them.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

#include "base/result.h"
#include "culling/candidate.h"

namespace larder::culling {

// The directories of fan-out of all volumes, in an order that stays while volumes come at the end.
// Threads: the caller's. All of it may block on the disk.
class FanOut {
 public:
  FanOut() = default;
  FanOut(const FanOut&) = delete;
  FanOut& operator=(const FanOut&) = delete;
  virtual ~FanOut() = default;

  [[nodiscard]] virtual std::size_t directories() = 0;
  // Calls `visit` for every object of a directory. One that is not there has none.
  [[nodiscard]] virtual Result<> list(std::size_t directory,
                                      const std::function<void(Candidate&&)>& visit) = 0;
  // A hint: cull() decides.
  [[nodiscard]] virtual bool in_use(std::size_t directory, std::string_view name) = 0;
  // Takes the object out of the cache. kBusy: it came into use; kNotFound: it is gone.
  [[nodiscard]] virtual Result<Freed> cull(std::size_t directory, const Candidate& object) = 0;
  // As stat now; kNotFound when it is gone.
  [[nodiscard]] virtual Result<Candidate> look_at(std::size_t directory, std::string_view name) = 0;
};

}  // namespace larder::culling
