// Each line of the input, with its newline, is a write to the device. One that is taken is a
// command of the kernel's with an argument of one line; limits stay in order whatever comes, and
// what the engine would be told are commands that it takes, with limits in order after each.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "control/cache_protocol.h"
#include "device/command.h"
#include "device/settings.h"

namespace {

using namespace larder;
using control::CacheCommand;
using control::CacheVerb;

void check_limits(std::uint64_t run, std::uint64_t cull, std::uint64_t stop) {
  CHECK(stop < cull && cull < run && run < 100);
}

// As the engine takes them: it begins with 10, 7 and 3 percent.
void check_told(const device::Settings& settings) {
  std::map<CacheVerb, unsigned> percents{{CacheVerb::kBrun, 10}, {CacheVerb::kBcull, 7},
                                         {CacheVerb::kBstop, 3}, {CacheVerb::kFrun, 10},
                                         {CacheVerb::kFcull, 7}, {CacheVerb::kFstop, 3}};
  for (const CacheCommand& command : settings.commands(1U << 30U)) {
    const auto parsed = control::parse_cache_command(control::encode_cache_command(command));
    CHECK(parsed && *parsed == command);
    const auto limit = percents.find(command.verb);
    if (limit != percents.end()) {
      limit->second = control::parse_percent(command.argument).value();
    }
    check_limits(percents[CacheVerb::kBrun], percents[CacheVerb::kBcull],
                 percents[CacheVerb::kBstop]);
    check_limits(percents[CacheVerb::kFrun], percents[CacheVerb::kFcull],
                 percents[CacheVerb::kFstop]);
  }
  CHECK(percents[CacheVerb::kBrun] == settings.blocks().run);
  CHECK(percents[CacheVerb::kBstop] == settings.blocks().stop);
  CHECK(percents[CacheVerb::kFcull] == settings.files().cull);
}

void write(device::Settings& settings, std::string_view text) {
  const auto command = device::parse_write(text);
  if (!command) {
    return;
  }
  CHECK(command->more_lines.empty());
  CHECK(command->argument.find('\n') == std::string::npos);
  CHECK(command->argument.find('\0') == std::string::npos);
  CHECK(text.starts_with(control::name_of(command->verb)));
  switch (command->verb) {
    case CacheVerb::kDebug:
      (void)device::parse_mask(command->argument);
      return;
    case CacheVerb::kBind:
    case CacheVerb::kCull:
    case CacheVerb::kInuse:
    case CacheVerb::kSecctx:
      return;
    default:
      (void)settings.set(*command);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text = text_of(std::as_bytes(std::span(data, size)));
  device::Settings settings;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    write(settings, text.substr(0, end));
    text.remove_prefix(end);
  }
  check_limits(settings.blocks().run, settings.blocks().cull, settings.blocks().stop);
  check_limits(settings.files().run, settings.files().cull, settings.files().stop);
  check_told(settings);
  return 0;
}
