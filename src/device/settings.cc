#include "device/settings.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "base/result.h"
#include "control/cache_limits.h"
#include "control/cache_protocol.h"
#include "device/command.h"

namespace larder::device {
namespace {

using control::CacheCommand;
using control::CacheVerb;

constexpr const char* kKernelsTag = "CacheFiles";

Result<> set_once(std::optional<std::string>& setting, const CacheCommand& command) {
  if (command.argument.empty()) {
    return fail(Errc::kInvalid, fmt::format("{} without an argument", name_of(command.verb)));
  }
  if (setting) {
    return fail(Errc::kExists, fmt::format("{} was given already", name_of(command.verb)));
  }
  setting = command.argument;
  return {};
}

}  // namespace

Result<> Settings::set(const CacheCommand& command) {
  switch (command.verb) {
    case CacheVerb::kDir:
      return set_once(directory_, command);
    case CacheVerb::kTag:
      return set_once(tag_, command);
    default:
      return set_limit(command.verb, command.argument);
  }
}

void Settings::settle() {
  if (!tag_) {
    tag_ = kKernelsTag;
  }
}

Result<> Settings::set_limit(CacheVerb verb, std::string_view argument) {
  const std::uint64_t percent = TRY(parse_kernel_percent(argument));
  const bool of_files =
      verb == CacheVerb::kFrun || verb == CacheVerb::kFcull || verb == CacheVerb::kFstop;
  Limits& current = of_files ? files_ : blocks_;
  Limits limits = current;
  const control::LimitVerbs& verbs = of_files ? control::kInodeVerbs : control::kBlockVerbs;
  (verb == verbs.run ? limits.run : verb == verbs.cull ? limits.cull : limits.stop) = percent;
  if (limits.stop >= limits.cull || limits.cull >= limits.run || limits.run >= 100) {
    return fail(Errc::kInvalid, fmt::format("{} {}: not 0 <= stop < cull < run < 100",
                                            name_of(verb), argument.substr(0, 100)));
  }
  current = limits;
  return {};
}

std::vector<CacheCommand> Settings::commands(std::uint64_t filesystem_bytes) const {
  std::vector<CacheCommand> commands;
  if (tag_) {
    commands.push_back({CacheVerb::kTag, *tag_, {}});
  }
  commands.push_back({CacheVerb::kSize, fmt::format("{}", filesystem_bytes), {}});
  std::ranges::move(control::limit_commands(blocks_, files_), std::back_inserter(commands));
  return commands;
}

}  // namespace larder::device
