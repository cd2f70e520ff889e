// Score: how much an object deserves to be culled, from what stat says of it alone. Pure.
#pragma once

#include <optional>
#include <vector>

#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::culling {

// Since last use; negative when a clock was set back.
[[nodiscard]] double seconds_unused(const os::FileStat& stat, os::FileTime now);

// Pinned objects have the sticky bit.
[[nodiscard]] bool is_pinned(const os::FileStat& stat);

// It was used after it was filled: its access and modification times are `stamp_seconds` apart, or
// more.
[[nodiscard]] bool is_used_again(const os::FileStat& stat, double stamp_seconds);

// Seconds since last use, `weight` times that. Size counts a little: what is a thousand times as
// large counts as half as long unused again.
// Why so: docs/decisions/0012-how-culling-chooses.md
[[nodiscard]] double score(const Candidate& candidate, os::FileTime now, double weight);

// What an object that was used again weighs, and the most of one that was not.
inline constexpr double kUsedAgain = 1;
inline constexpr double kNeverUsedAgain = 4;

// The weight of what was never used again, from the seconds that have passed since the last uses of
// those that were, in any order. While these are in use it is the most. It falls to that of the
// others, when none of them was used for a quarter of the time that the oldest was not: then what
// comes is what is used from now on. nullopt: these are too few to tell.
[[nodiscard]] std::optional<double> weight_of_never_used_again(std::vector<double> seconds_unused);

// Seconds after which a stamp of last use is old enough to be written again: a 64th of the age of
// the longest unused object, at least `least`, at most a day. So that stamps are few, and still
// tell what is old.
[[nodiscard]] double stamp_after(double oldest_seconds, double least);

}  // namespace larder::culling
