// The control socket's codec. What decodes as a line can be encoded, to a line that decodes to the
// same words; a body comes back from its packets as it was; packets of any kind are never read
// beyond their end.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "control/line_codec.h"

namespace {

using namespace larder;
using namespace larder::control;

void check_line(std::string_view text) {
  const auto words = decode_line(text);
  if (!words) {
    return;
  }
  // No word takes more bytes than it came in: there is room for all of them.
  const auto line = encode_line(*words);
  CHECK(line.has_value());
  const auto again = decode_line(*line);
  CHECK(again.has_value() && *again == *words);
}

void check_reply(std::string_view text) {
  // Long enough for several packets, at little cost to the input.
  std::string body;
  for (int i = 0; i < (text.size() % 8 == 0 ? 600 : 1); ++i) {
    body += text;
  }
  ReplyReader reader;
  bool complete = false;
  for (const std::string& packet : encode_reply(body)) {
    CHECK(!complete && packet.size() <= kMostPacketBytes);
    const auto added = reader.add(packet);
    CHECK(added.has_value());
    complete = *added;
  }
  CHECK(complete);
  const auto taken = reader.take();
  CHECK(taken.has_value() && *taken == body);
}

void check_packets(std::string_view rest) {
  ReplyReader reader;
  while (!rest.empty()) {
    const std::size_t length = std::min<std::size_t>(rest.size(), 1 + rest.size() / 2);
    const auto complete = reader.add(rest.substr(0, length));
    if (!complete) {
      return;
    }
    if (*complete) {
      const auto taken = reader.take();
      CHECK(!taken || taken->size() < length + kMostBodyBytes);
      return;
    }
    rest.remove_prefix(length);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(std::as_bytes(std::span(data, size)));
  check_line(text);
  check_reply(text);
  check_packets(text);
  return 0;
}
