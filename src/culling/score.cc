#include "culling/score.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr std::uint32_t kStickyBit = 01000;
constexpr std::size_t kLeastToTell = 32;
constexpr double kYoungPart = 0.05;  // the first of them does not tell of the others
constexpr double kDeadAfter = 4;     // times as old is the oldest
constexpr double kSizePower = 1.0 / 16;
constexpr double kBlock = 4096;
constexpr double kStampPart = 64;
constexpr double kMostStampSeconds = 86400;

double seconds_between(os::FileTime from, os::FileTime to) {
  return static_cast<double>(to.seconds - from.seconds) +
         (static_cast<double>(to.nanoseconds) - static_cast<double>(from.nanoseconds)) * 1e-9;
}

// The one below which so large a part of them lies.
double nth(std::vector<double>& values, double part) {
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(values.size() - 1) * part);
  std::ranges::nth_element(values, at);
  return *at;
}

}  // namespace

double seconds_unused(const os::FileStat& stat, os::FileTime now) {
  return seconds_between(stat.accessed, now);
}

bool is_pinned(const os::FileStat& stat) {
  return (stat.mode & kStickyBit) != 0;
}

bool is_used_again(const os::FileStat& stat, double stamp_seconds) {
  return seconds_between(stat.modified, stat.accessed) >= stamp_seconds &&
         stat.accessed > stat.modified;
}

double score(const Candidate& candidate, os::FileTime now, double weight) {
  const double blocks = std::max(1.0, static_cast<double>(candidate.bytes) / kBlock);
  return std::max(0.0, seconds_unused(candidate.stat, now)) * weight * std::pow(blocks, kSizePower);
}

std::optional<double> weight_of_never_used_again(std::vector<double> seconds_unused) {
  if (seconds_unused.size() < kLeastToTell) {
    return std::nullopt;
  }
  const double young = nth(seconds_unused, kYoungPart);
  const double old = nth(seconds_unused, 1 - kYoungPart);
  return std::clamp(old / (kDeadAfter * std::max(young, 1.0)), kUsedAgain, kNeverUsedAgain);
}

double stamp_after(double oldest_seconds, double least) {
  return std::max(least, std::min(oldest_seconds / kStampPart, kMostStampSeconds));
}

}  // namespace larder::culling
