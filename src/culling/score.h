// Score: how much an object deserves to be culled, from what stat says of it alone. Pure.
#pragma once

#include "culling/candidate.h"
#include "os/filesystem.h"

namespace larder::culling {

// Since last use; negative when a clock was set back.
[[nodiscard]] double seconds_unused(const os::FileStat& stat, os::FileTime now);

// Pinned objects have the sticky bit.
[[nodiscard]] bool is_pinned(const os::FileStat& stat);

// Seconds since last use, four times that for what was never used again after it was filled: its
// access and modification times are less than `stamp_seconds` apart. Size counts a little: what is
// a thousand times as large counts as half as long unused again.
// Why these: docs/decisions/0012-how-culling-chooses.md
[[nodiscard]] double score(const Candidate& candidate, os::FileTime now, double stamp_seconds);

// Seconds after which a stamp of last use is old enough to be written again: a 64th of the age of
// the longest unused object, at least `least`, at most a day. So that stamps are few, and still
// tell what is old.
[[nodiscard]] double stamp_after(double oldest_seconds, double least);

}  // namespace larder::culling
