#include "cachefilesd/limits.h"

#include <array>
#include <expected>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "control/cache_limits.h"
#include "control/cache_protocol.h"

namespace larder::cachefilesd {
namespace {

using control::CacheVerb;

// Three that belong together.
struct LimitRow {
  control::LimitVerbs verbs;
  unsigned Limits::* run_value;
  unsigned Limits::* cull_value;
  unsigned Limits::* stop_value;
};

constexpr std::array<LimitRow, 2> kLimitRows{{
    {control::kBlockVerbs, &Limits::brun, &Limits::bcull, &Limits::bstop},
    {control::kInodeVerbs, &Limits::frun, &Limits::fcull, &Limits::fstop},
}};

std::unexpected<Error> out_of_order(CacheVerb verb, unsigned percent, const char* relation,
                                    CacheVerb neighbour, unsigned now) {
  return fail(Errc::kInvalid,
              fmt::format("{0} {1}% must be {2} {3}, which is {4}% so far: stop < cull < run; give "
                          "{3} before {0}, or other numbers",
                          name_of(verb), percent, relation, name_of(neighbour), now));
}

}  // namespace

unsigned Limits::* limit_of(CacheVerb verb) {
  for (const LimitRow& row : kLimitRows) {
    if (verb == row.verbs.run) {
      return row.run_value;
    }
    if (verb == row.verbs.cull) {
      return row.cull_value;
    }
    if (verb == row.verbs.stop) {
      return row.stop_value;
    }
  }
  return nullptr;
}

Result<> set_limit(Limits& limits, CacheVerb verb, unsigned percent) {
  for (const LimitRow& row : kLimitRows) {
    const unsigned run = limits.*row.run_value;
    const unsigned cull = limits.*row.cull_value;
    const unsigned stop = limits.*row.stop_value;
    if (verb == row.verbs.run && percent <= cull) {
      return out_of_order(verb, percent, "above", row.verbs.cull, cull);
    }
    if (verb == row.verbs.stop && percent >= cull) {
      return out_of_order(verb, percent, "below", row.verbs.cull, cull);
    }
    if (verb == row.verbs.cull && percent >= run) {
      return out_of_order(verb, percent, "below", row.verbs.run, run);
    }
    if (verb == row.verbs.cull && percent <= stop) {
      return out_of_order(verb, percent, "above", row.verbs.stop, stop);
    }
  }
  unsigned Limits::* const limit = limit_of(verb);
  CHECK(limit != nullptr);
  limits.*limit = percent;
  return {};
}

std::vector<control::CacheCommand> limit_commands(const Limits& limits) {
  return control::limit_commands({limits.brun, limits.bcull, limits.bstop},
                                 {limits.frun, limits.fcull, limits.fstop});
}

}  // namespace larder::cachefilesd
