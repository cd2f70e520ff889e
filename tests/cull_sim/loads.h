// Loads: kinds of use that a cache sees, made from a seed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "sizes.h"
#include "trace.h"

namespace larder::cull_sim {

// How many objects of mean size a cache holds, and how much of what comes is of them.
struct Scale {
  std::uint32_t cached = 24'000;
  std::uint32_t requests = 400'000;
};

// What slices must reach, in points of the hit ratio of requests beyond an exact LRU's.
inline constexpr double kNotWorse = -0.3;
inline constexpr double kBetter = 2.0;
// Where they fall short of kNotWorse, and how much at most (docs/decisions/0012): in a loop's first
// rounds.
inline constexpr double kChange = -2;

struct Load {
  std::string name;
  double aim = kNotWorse;
  bool stats_counted = true;  // false: a small cache, all of which is looked at
  std::function<Trace(const Scale&, std::uint64_t seed)> make;
};

[[nodiscard]] std::vector<Load> all_loads();

}  // namespace larder::cull_sim
