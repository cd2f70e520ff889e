#include "cachefilesd/engine_channel.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/limits.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "control/line_codec.h"
#include "culling/candidate.h"
#include "os/packet_socket.h"

namespace larder::cachefilesd {
namespace {

using control::CacheCommand;
using control::CacheState;
using control::CacheVerb;
using control::ChannelPacket;

Error hung_up(const Error& error) {
  return error.code() == Errc::kNotFound ? Error(Errc::kCacheDead, "the engine hung up") : error;
}

Result<> send_text(const UniqueFd& socket, std::string text, int descriptor) {
  const iovec part{text.data(), text.size()};
  const Result<> sent = os::send_packet(
      socket, std::span(&part, 1), std::span(&descriptor, descriptor < 0 ? 0 : 1), os::Wait::kYes);
  if (!sent) {
    return fail(hung_up(sent.error()));
  }
  return {};
}

// The next packet; nullopt: none there.
Result<std::optional<std::string>> receive_text(const UniqueFd& socket, MutableBytes buffer) {
  const Result<os::Packet> packet = os::receive_packet(socket, buffer, os::Wait::kNo);
  if (packet) {
    return std::string(text_of(Bytes(buffer).first(packet->length)));
  }
  if (packet.error().code() == Errc::kBusy) {
    return std::nullopt;
  }
  return fail(hung_up(packet.error()));
}

// kCancelled when told to stop.
Result<> wait_for(const UniqueFd& socket, Waiter& waiter) {
  const std::array<int, 1> descriptors{socket.get()};
  while (!waiter.told_to_stop()) {
    if (waiter.wait(descriptors, std::nullopt) == Waiter::Woken::kReady) {
      return {};
    }
  }
  return fail(Errc::kCancelled, "told to stop");
}

// To a line of the control socket's.
Result<std::string> hear_reply(const UniqueFd& socket, Waiter& waiter) {
  control::ReplyReader reader;
  std::vector<std::byte> buffer(control::kMostPacketBytes);
  for (bool is_complete = false; !is_complete;) {
    TRY(wait_for(socket, waiter));
    const std::optional<std::string> packet = TRY(receive_text(socket, buffer));
    is_complete = packet && TRY(reader.add(*packet));
  }
  return reader.take();
}

// With the code that belongs to the kernel's errno; the sentence stays the engine's.
Error refusal(const ChannelPacket& packet) {
  return {Error::from_errno(packet.error_number, {}).code(), packet.text};
}

void add_released(CacheState& state, const CacheState& before) {
  state.released_files += before.released_files;
  state.released_blocks += before.released_blocks;
}

}  // namespace

Result<std::unique_ptr<CacheChannel>> EngineChannel::connect(const std::string& runtime_directory,
                                                             Waiter& waiter) {
  const std::string path = runtime_directory + "/control.sock";
  Result<UniqueFd> socket = os::connect_for_packets(path);
  if (!socket) {
    const int error_number = socket.error().error_number();
    return error_number == ENOENT || error_number == ECONNREFUSED
               ? fail(Errc::kNotFound, fmt::format("no engine listens on {}: start one with "
                                                   "`larder serve`, or say where it is with "
                                                   "runtime-dir",
                                                   path))
               : fail(socket.error());
  }
  const std::string request = TRY(control::encode_line({"cache"}));
  TRY(send_text(*socket, request, -1));
  TRY(hear_reply(*socket, waiter));
  return std::make_unique<EngineChannel>(std::move(*socket), waiter);
}

EngineChannel::EngineChannel(UniqueFd socket, Waiter& waiter)
    : socket_(std::move(socket)), waiter_(waiter), buffer_(control::kMostChannelPacketBytes) {}

Result<> EngineChannel::bind(const Config& config, int directory) {
  TRY(give(CacheVerb::kDir, config.directory, directory));
  if (config.tag) {
    TRY(give(CacheVerb::kTag, *config.tag));
  }
  if (config.security_context) {
    TRY(give(CacheVerb::kSecctx, *config.security_context));
  }
  Config before;
  before.limits = Limits();
  TRY(reconfigure(before, config));
  TRY(give(CacheVerb::kBind, {}));
  return {};
}

Result<> EngineChannel::reconfigure(const Config& from, const Config& to) {
  if (from.debug_mask != to.debug_mask) {
    TRY(give(CacheVerb::kDebug, fmt::format("{}", to.debug_mask)));
  }
  if (from.size_bytes != to.size_bytes) {
    TRY(give(CacheVerb::kSize, fmt::format("{}", to.size_bytes.value_or(0))));
  }
  for (const CacheCommand& command : limit_commands(from.limits, to.limits)) {
    TRY(give(command));
  }
  return {};
}

Result<CacheState> EngineChannel::ask_state() {
  std::string line = TRY(give(CacheVerb::kState, {}));
  if (line.ends_with('\n')) {
    line.pop_back();
  }
  CacheState state = TRY(control::parse_cache_state(line));
  // It is newer than what was pushed before it.
  if (const auto before = std::exchange(pushed_, std::nullopt)) {
    add_released(state, *before);
  }
  return state;
}

Result<> EngineChannel::tell_oldest(double seconds) {
  TRY(give(CacheVerb::kOldest, fmt::format("{:.0f}", seconds)));
  return {};
}

Result<std::optional<CacheState>> EngineChannel::hear() {
  for (;;) {
    const std::optional<std::string> text = TRY(receive_text(socket_, buffer_));
    if (!text) {
      return std::exchange(pushed_, std::nullopt);
    }
    const ChannelPacket packet = TRY(control::parse_channel_packet(*text));
    if (packet.kind != ChannelPacket::Kind::kState) {
      return fail(Errc::kCorrupt, "the engine answered what nobody asked");
    }
    TRY(keep(packet.text));
  }
}

Result<std::vector<Result<std::uint64_t>>> EngineChannel::cull(
    const ObjectPlace& place, std::span<const culling::Candidate> objects) {
  std::vector<control::ObjectPath> paths;
  paths.reserve(objects.size());
  for (const culling::Candidate& object : objects) {
    paths.push_back({place.path, object.name});
  }
  std::vector<Result<std::uint64_t>> answers;
  for (std::span<const control::ObjectPath> left(paths); !left.empty();) {
    const auto [command, count] = control::objects_command(CacheVerb::kCull, left);
    left = left.subspan(count);
    Result<std::string> body = give(command);
    if (!body && count == 1 &&
        (body.error().code() == Errc::kBusy || body.error().code() == Errc::kNotFound ||
         body.error().code() == Errc::kInvalid)) {
      answers.emplace_back(fail(std::move(body).error()));
      continue;
    }
    if (!body) {
      return fail(std::move(body).error());
    }
    const std::vector<control::ObjectOutcome> outcomes = TRY(control::parse_outcomes(*body));
    if (outcomes.size() != count) {
      return fail(Errc::kCorrupt,
                  fmt::format("the engine answered for {} of {} objects", outcomes.size(), count));
    }
    for (const control::ObjectOutcome& outcome : outcomes) {
      answers.push_back(outcome.error_number == 0
                            ? Result<std::uint64_t>(outcome.bytes)
                            : fail_errno(outcome.error_number, "an object of the engine's"));
    }
  }
  return answers;
}

Result<std::string> EngineChannel::give(CacheVerb verb, std::string argument, int descriptor) {
  return give(CacheCommand{verb, std::move(argument), {}}, descriptor);
}

Result<std::string> EngineChannel::give(const CacheCommand& command, int descriptor) {
  TRY(send_text(socket_, control::encode_cache_command(command), descriptor));
  for (;;) {
    TRY(wait_for(socket_, waiter_));
    std::optional<Result<std::string>> answer = TRY(receive());
    if (answer) {
      return std::move(*answer);
    }
  }
}

Result<std::optional<Result<std::string>>> EngineChannel::receive() {
  const std::optional<std::string> text = TRY(receive_text(socket_, buffer_));
  if (!text) {
    return std::nullopt;
  }
  ChannelPacket packet = TRY(control::parse_channel_packet(*text));
  switch (packet.kind) {
    case ChannelPacket::Kind::kState:
      TRY(keep(packet.text));
      return std::nullopt;
    case ChannelPacket::Kind::kError:
      return Result<std::string>(fail(refusal(packet)));
    case ChannelPacket::Kind::kOk:
      break;
  }
  return Result<std::string>(std::move(packet.text));
}

Result<> EngineChannel::keep(const std::string& line) {
  CacheState state = TRY(control::parse_cache_state(line));
  if (pushed_) {
    add_released(state, *pushed_);
  }
  pushed_ = state;
  return {};
}

}  // namespace larder::cachefilesd
