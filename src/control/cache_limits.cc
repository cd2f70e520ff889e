#include "control/cache_limits.h"

#include <cstdint>
#include <vector>

#include <fmt/format.h>

#include "control/cache_protocol.h"

namespace larder::control {
namespace {

// First as far apart as can be: so each of the three fits between the others, whatever they were.
void tell(const CacheLimits& limits, const LimitVerbs& verbs, std::vector<CacheCommand>& commands) {
  const auto tell_one = [&commands](CacheVerb verb, std::uint64_t percent) {
    commands.push_back({verb, fmt::format("{}%", percent), {}});
  };
  tell_one(verbs.run, 99);
  tell_one(verbs.stop, 0);
  tell_one(verbs.cull, limits.cull);
  tell_one(verbs.run, limits.run);
  tell_one(verbs.stop, limits.stop);
}

}  // namespace

std::vector<CacheCommand> limit_commands(const CacheLimits& blocks, const CacheLimits& inodes) {
  std::vector<CacheCommand> commands;
  tell(blocks, kBlockVerbs, commands);
  tell(inodes, kInodeVerbs, commands);
  return commands;
}

}  // namespace larder::control
