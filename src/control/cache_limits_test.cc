// A holder of a cache gives it all its limits without knowing what held before, and each command is
// compared with the others as they are then: none may be refused on the way.
#include "control/cache_limits.h"

#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "base/result.h"
#include "control/cache_protocol.h"

namespace larder::control {
namespace {

// As the kernel and the engine do it. False: refused.
bool obey(const CacheCommand& command, const LimitVerbs& verbs, CacheLimits& limits) {
  const std::uint64_t percent = parse_percent(command.argument).value();
  if (command.verb == verbs.run) {
    limits.run = percent;
  } else if (command.verb == verbs.cull) {
    limits.cull = percent;
  } else if (command.verb == verbs.stop) {
    limits.stop = percent;
  }
  return limits.stop < limits.cull && limits.cull < limits.run;
}

std::vector<CacheLimits> all_limits() {
  std::vector<CacheLimits> all{{99, 98, 97}, {99, 98, 0}, {99, 1, 0}, {10, 7, 3}};
  for (std::uint64_t stop = 0; stop < 4; ++stop) {
    for (std::uint64_t cull = stop + 1; cull < stop + 4; ++cull) {
      for (std::uint64_t run = cull + 1; run < cull + 4; ++run) {
        all.push_back({run, cull, stop});
      }
    }
  }
  return all;
}

TEST(CacheLimitsTest, EveryStepIsAllowedWhateverHeldBefore) {
  const std::vector<CacheLimits> all = all_limits();
  for (const CacheLimits& from : all) {
    for (const CacheLimits& to : all) {
      CacheLimits blocks = from;
      CacheLimits inodes = to;
      for (const CacheCommand& command : limit_commands(to, from)) {
        ASSERT_TRUE(obey(command, kBlockVerbs, blocks)) << encode_cache_command(command);
        ASSERT_TRUE(obey(command, kInodeVerbs, inodes)) << encode_cache_command(command);
      }
      ASSERT_EQ(blocks, to);
      ASSERT_EQ(inodes, from);
    }
  }
}

}  // namespace
}  // namespace larder::control
