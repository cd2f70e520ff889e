#include "cachefilesd/limits.h"

#include <array>
#include <expected>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "control/cache_protocol.h"

namespace larder::cachefilesd {
namespace {

using control::CacheVerb;

// Three that belong together.
struct LimitRow {
  CacheVerb run, cull, stop;
  unsigned Limits::* run_value;
  unsigned Limits::* cull_value;
  unsigned Limits::* stop_value;
};

constexpr std::array<LimitRow, 2> kLimitRows{{
    {CacheVerb::kBrun, CacheVerb::kBcull, CacheVerb::kBstop, &Limits::brun, &Limits::bcull,
     &Limits::bstop},
    {CacheVerb::kFrun, CacheVerb::kFcull, CacheVerb::kFstop, &Limits::frun, &Limits::fcull,
     &Limits::fstop},
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
    if (verb == row.run) {
      return row.run_value;
    }
    if (verb == row.cull) {
      return row.cull_value;
    }
    if (verb == row.stop) {
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
    if (verb == row.run && percent <= cull) {
      return out_of_order(verb, percent, "above", row.cull, cull);
    }
    if (verb == row.stop && percent >= cull) {
      return out_of_order(verb, percent, "below", row.cull, cull);
    }
    if (verb == row.cull && percent >= run) {
      return out_of_order(verb, percent, "below", row.run, run);
    }
    if (verb == row.cull && percent <= stop) {
      return out_of_order(verb, percent, "above", row.stop, stop);
    }
  }
  unsigned Limits::* const limit = limit_of(verb);
  CHECK(limit != nullptr);
  limits.*limit = percent;
  return {};
}

std::vector<control::CacheCommand> limit_commands(const Limits& from, const Limits& to) {
  std::vector<control::CacheCommand> commands;
  const auto give = [&](CacheVerb verb, unsigned percent) {
    commands.push_back({verb, fmt::format("{}%", percent), {}});
  };
  for (const LimitRow& row : kLimitRows) {
    // What makes room comes first.
    if (to.*row.run_value > from.*row.run_value) {
      give(row.run, to.*row.run_value);
    }
    if (to.*row.stop_value < from.*row.stop_value) {
      give(row.stop, to.*row.stop_value);
    }
    if (to.*row.cull_value != from.*row.cull_value) {
      give(row.cull, to.*row.cull_value);
    }
    if (to.*row.run_value < from.*row.run_value) {
      give(row.run, to.*row.run_value);
    }
    if (to.*row.stop_value > from.*row.stop_value) {
      give(row.stop, to.*row.stop_value);
    }
  }
  return commands;
}

}  // namespace larder::cachefilesd
