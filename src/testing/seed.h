// The seed of a test that draws what it does: LARDER_SEED, or one never used before; printed, so
// that what fails can be repeated.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>

namespace larder::testing {

inline std::uint64_t seed_of_test() {
  const char* const given =
      std::getenv("LARDER_SEED");  // NOLINT(concurrency-mt-unsafe): no threads
  const std::uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device()();
  std::cout << "seed " << seed << "\n";
  return seed;
}

}  // namespace larder::testing
