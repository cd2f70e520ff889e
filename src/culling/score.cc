#include "culling/score.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr std::uint32_t kStickyBit = 01000;
constexpr double kNeverUsedAgain = 4;
constexpr double kSizePower = 1.0 / 16;
constexpr double kBlock = 4096;
constexpr double kStampPart = 64;
constexpr double kMostStampSeconds = 86400;

double seconds_between(os::FileTime from, os::FileTime to) {
  return static_cast<double>(to.seconds - from.seconds) +
         (static_cast<double>(to.nanoseconds) - static_cast<double>(from.nanoseconds)) * 1e-9;
}

}  // namespace

double seconds_unused(const os::FileStat& stat, os::FileTime now) {
  return seconds_between(stat.accessed, now);
}

bool is_pinned(const os::FileStat& stat) {
  return (stat.mode & kStickyBit) != 0;
}

double score(const Candidate& candidate, os::FileTime now, double stamp_seconds) {
  const os::FileStat& stat = candidate.stat;
  const bool used_again = seconds_between(stat.modified, stat.accessed) >= stamp_seconds &&
                          stat.accessed > stat.modified;
  const double blocks = std::max(1.0, static_cast<double>(candidate.bytes) / kBlock);
  return std::max(0.0, seconds_unused(stat, now)) * (used_again ? 1 : kNeverUsedAgain) *
         std::pow(blocks, kSizePower);
}

double stamp_after(double oldest_seconds, double least) {
  return std::max(least, std::min(oldest_seconds / kStampPart, kMostStampSeconds));
}

}  // namespace larder::culling
