// A configuration that is taken has limits that the kernel takes and an absolute directory; one
// that is not is told line by line. Nothing is read beyond the end.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "cachefilesd/config.h"
#include "cachefilesd/limits.h"
#include "control/cache_protocol.h"

namespace {

using namespace larder;
using namespace larder::cachefilesd;

void check_config(const Config& config) {
  const Limits& limits = config.limits;
  CHECK(limits.bstop < limits.bcull && limits.bcull < limits.brun && limits.brun < 100);
  CHECK(limits.fstop < limits.fcull && limits.fcull < limits.frun && limits.frun < 100);
  CHECK(config.directory.starts_with('/') && config.directory.find('\n') == std::string::npos);
  CHECK(!config.runtime_directory || !config.device);
  for (const auto& text : {config.tag, config.security_context}) {
    CHECK(!text || (!text->empty() && text->find('\0') == std::string::npos));
  }
  // Whatever held before.
  for (Limits reached : {Limits(), Limits{2, 1, 0, 2, 1, 0}, Limits{99, 98, 97, 99, 98, 97}}) {
    for (const control::CacheCommand& command : limit_commands(limits)) {
      const auto percent = control::parse_percent(command.argument);
      CHECK(percent && set_limit(reached, command.verb, *percent));
    }
    CHECK(reached == limits);
  }
}

void check_sentences(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    CHECK(line.starts_with("name:") && line.find('\0') == std::string_view::npos);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto config = parse_config(text_of(std::as_bytes(std::span(data, size))), "name");
  if (config) {
    check_config(*config);
  } else {
    check_sentences(config.error().context());
  }
  return 0;
}
