#include "sizes.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

namespace larder::cull_sim {
namespace {

constexpr double kBlock = 4096;
constexpr double kSigma = 1.5;
constexpr double kTail = 1.2;
constexpr double kMostTimesMean = 1000;

double draw_one(Sizes sizes, std::mt19937_64& random) {
  const double mean = kMeanBytes;
  switch (sizes) {
    case Sizes::kEqual:
      return mean;
    case Sizes::kLogNormal:
      return std::lognormal_distribution<double>(std::log(mean) - kSigma * kSigma / 2,
                                                 kSigma)(random);
    case Sizes::kPareto: {
      const double least = mean * (kTail - 1) / kTail;
      const double uniform = 1 - std::uniform_real_distribution<double>()(random);
      return std::min(least * std::pow(uniform, -1 / kTail), mean * kMostTimesMean);
    }
  }
  return mean;
}

}  // namespace

std::string_view name_of(Sizes sizes) {
  switch (sizes) {
    case Sizes::kEqual:
      return "equal";
    case Sizes::kLogNormal:
      return "log-normal";
    case Sizes::kPareto:
      return "pareto";
  }
  return "";
}

std::vector<std::uint64_t> draw_sizes(Sizes sizes, std::size_t objects, std::mt19937_64& random) {
  std::vector<std::uint64_t> bytes(objects);
  for (std::uint64_t& each : bytes) {
    each = static_cast<std::uint64_t>(std::ceil(draw_one(sizes, random) / kBlock) * kBlock);
  }
  return bytes;
}

}  // namespace larder::cull_sim
