#include "zipf.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>

namespace larder::cull_sim {

Zipf::Zipf(std::uint32_t ranks, double alpha) {
  up_to_.reserve(ranks);
  double sum = 0;
  for (std::uint32_t rank = 0; rank < ranks; ++rank) {
    sum += std::pow(rank + 1.0, -alpha);
    up_to_.push_back(sum);
  }
}

std::uint32_t Zipf::draw(std::mt19937_64& random) const {
  const double at = std::uniform_real_distribution<double>(0, up_to_.back())(random);
  return static_cast<std::uint32_t>(std::upper_bound(up_to_.begin(), up_to_.end(), at) -
                                    up_to_.begin());
}

}  // namespace larder::cull_sim
