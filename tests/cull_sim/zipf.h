// Zipf: ranks whose popularity falls with a power of the rank.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace larder::cull_sim {

// Draws rank r of [0, ranks) with a probability in proportion to (r + 1)^-alpha.
class Zipf {
 public:
  Zipf(std::uint32_t ranks, double alpha);

  [[nodiscard]] std::uint32_t draw(std::mt19937_64& random) const;

 private:
  std::vector<double> up_to_;  // the sum of the weights of this rank and all before
};

}  // namespace larder::cull_sim
