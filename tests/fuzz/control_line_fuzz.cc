// Fuzzes the control socket's codec: what decodes must encode to a line that decodes to the same
// words, and no sequence of reply packets may be read beyond its end.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "control/line_codec.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = larder::text_of(std::as_bytes(std::span(data, size)));
  if (const auto words = larder::control::decode_line(text)) {
    const auto line = larder::control::encode_line(*words);
    CHECK(line.has_value() || text.size() > larder::control::kMostLineBytes / 3);
    if (line) {
      CHECK(larder::control::decode_line(*line) == words);
    }
  }
  larder::control::ReplyReader reader;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t length = std::min<std::size_t>(rest.size(), 1 + rest.size() / 2);
    const auto complete = reader.add(rest.substr(0, length));
    if (!complete || *complete) {
      break;
    }
    rest.remove_prefix(length);
  }
  return 0;
}
