// Both ends of a cache channel. What parses as a command can be given again as the same; objects
// lie below the cache whatever is written; what the engine sends is understood as it was meant, or
// refused.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/result.h"
#include "control/cache_protocol.h"

namespace {

using namespace larder;
using namespace larder::control;

void check_path(const ObjectPath& object) {
  CHECK(!object.name.empty() && object.name.find('/') == std::string::npos);
  CHECK(object.name != "." && object.name != "..");
  CHECK(!object.directory.empty() && !object.directory.starts_with('/'));
  const std::string framed = '/' + object.directory + '/';
  CHECK(framed.find("/../") == std::string::npos && framed.find("/./") == std::string::npos &&
        framed.find("//") == std::string::npos);
}

void check_command(std::string_view packet) {
  const auto command = parse_cache_command(packet);
  if (!command) {
    return;
  }
  const auto again = parse_cache_command(encode_cache_command(*command));
  CHECK(again.has_value() && *again == *command);
  if (const auto percent = parse_percent(command->argument)) {
    CHECK(*percent < 100);
  }
  const auto objects = objects_of(*command);
  if (!objects) {
    return;
  }
  CHECK(!objects->empty() && objects->size() <= kMostObjectsAtOnce);
  for (const ObjectPath& object : *objects) {
    check_path(object);
  }
  std::span<const ObjectPath> left(*objects);
  while (!left.empty()) {
    const ObjectsCommand some = objects_command(CacheVerb::kCull, left);
    CHECK(some.objects > 0 && some.objects <= left.size());
    const auto back = objects_of(some.command);
    CHECK(back.has_value() && std::vector(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(
                                                                           some.objects)) == *back);
    left = left.subspan(some.objects);
  }
}

void check_packet(std::string_view text) {
  const auto packet = parse_channel_packet(text);
  if (!packet) {
    return;
  }
  const auto again = parse_channel_packet(encode_channel_packet(*packet));
  CHECK(again.has_value() && again->kind == packet->kind &&
        again->error_number == packet->error_number);
  CHECK((packet->kind == ChannelPacket::Kind::kError) == (packet->error_number != 0));
}

void check_answers(std::string_view text) {
  if (const auto state = parse_cache_state(text)) {
    CacheState of_engine = *state;
    of_engine.block_bytes += of_engine.block_bytes == 0 ? 1 : 0;
    const auto again = parse_cache_state(encode_cache_state(of_engine));
    CHECK(again.has_value() && *again == of_engine);
  }
  if (const auto outcomes = parse_outcomes(text)) {
    const auto again = parse_outcomes(encode_outcomes(*outcomes));
    CHECK(again.has_value() && *again == *outcomes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(std::as_bytes(std::span(data, size)));
  check_command(text);
  check_packet(text);
  check_answers(text);
  return 0;
}
