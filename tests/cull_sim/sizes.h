// Sizes: how large objects are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

namespace larder::cull_sim {

enum class Sizes {
  kEqual,
  kLogNormal,  // most are small, a few hundred times the median
  kPareto,     // a heavy tail: few hold much of all bytes, the largest some per cent of a cache
};

inline constexpr Sizes kAllSizes[] = {Sizes::kEqual, Sizes::kLogNormal, Sizes::kPareto};

[[nodiscard]] std::string_view name_of(Sizes sizes);

// Bytes of so many objects, in whole blocks. Their mean is about kMeanBytes.
inline constexpr std::uint64_t kMeanBytes = 65'536;
[[nodiscard]] std::vector<std::uint64_t> draw_sizes(Sizes sizes, std::size_t objects,
                                                    std::mt19937_64& random);

}  // namespace larder::cull_sim
