// What keeper, engine and command line tell each other, chosen by the first byte. What decodes must
// encode to something that decodes to the same; a message has the text that its head announces, and
// as many descriptors as belong to its kind.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/unique_fd.h"
#include "handover/lines.h"
#include "handover/messages.h"
#include "handover/mount_spec.h"

namespace {

using namespace larder;
using namespace larder::handover;

void check_lines(std::string_view text) {
  const auto lines = parse_lines(text);
  if (!lines) {
    return;
  }
  std::string written;
  for (const auto& [key, value] : *lines) {
    append_line(written, key, value);
  }
  const auto again = parse_lines(written);
  CHECK(again.has_value() && *again == *lines);
  for (const auto& [key, value] : *lines) {
    CHECK(has_line(written, key, value));
  }
}

void check_spec(std::string_view text) {
  const auto spec = decode_spec(text);
  if (!spec) {
    return;
  }
  CHECK(!spec->source.empty() && spec->mountpoint.starts_with('/'));
  const auto written = encode_spec(*spec);
  // Escaping makes a text longer only if it was not escaped as encode_spec does it.
  CHECK(written.has_value() || text.size() > kMostSpecBytes / 3);
  if (written) {
    const auto again = decode_spec(*written);
    CHECK(again.has_value() && *again == *spec);
  }
}

void check_hello(std::string_view text) {
  if (const auto hello = decode_hello(text)) {
    const auto again = decode_hello(encode_hello(*hello));
    CHECK(again.has_value() && again->runtime_directory == hello->runtime_directory &&
          again->log_level == hello->log_level);
  }
}

// `bytes`: how many descriptors came along, and the message.
void check_message(Bytes bytes) {
  if (bytes.empty()) {
    return;
  }
  const std::size_t came = std::to_integer<std::size_t>(bytes.front()) % 16;
  bytes = bytes.subspan(1);
  const auto message = decode_message(bytes, std::vector<UniqueFd>(came));
  if (message) {
    CHECK(bytes.size() == sizeof(MessageHead) + message->text.size());
    CHECK(message->head.text_length == message->text.size());
    CHECK(message->text == text_of(bytes.subspan(sizeof(MessageHead))));
    CHECK(message->text.size() <= kMostSpecBytes && message->head.error_number >= 0);
    CHECK(message->descriptors.size() == came);
    CHECK(came == 0 || message->head.kind != MessageKind::kReady);
    CHECK(came == 1 || message->head.kind != MessageKind::kTakeMount);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const Bytes bytes = std::as_bytes(std::span(data + 1, size - 1));
  switch (data[0] % 4) {
    case 0:
      check_spec(text_of(bytes));
      break;
    case 1:
      check_message(bytes);
      break;
    case 2:
      check_hello(text_of(bytes));
      break;
    default:
      check_lines(text_of(bytes));
      break;
  }
  return 0;
}
