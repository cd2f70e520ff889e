#include "control/channel_client.h"

#include <cerrno>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/line_codec.h"
#include "os/packet_socket.h"

namespace larder::control {
namespace {

Error hung_up(const Error& error) {
  return error.code() == Errc::kNotFound ? Error(Errc::kCacheDead, "the engine hung up") : error;
}

// Never waits: one command at a time finds room.
Result<> send_text(const UniqueFd& socket, std::string text, int descriptor) {
  const iovec part{text.data(), text.size()};
  const Result<> sent = os::send_packet(
      socket, std::span(&part, 1), std::span(&descriptor, descriptor < 0 ? 0 : 1), os::Wait::kNo);
  if (!sent) {
    return fail(hung_up(sent.error()));
  }
  return {};
}

}  // namespace

Result<ChannelClient> ChannelClient::connect(const std::string& runtime_directory) {
  const std::string path = runtime_directory + "/control.sock";
  Result<UniqueFd> socket = os::connect_for_packets(path, os::Wait::kNo);
  if (!socket) {
    const int error_number = socket.error().error_number();
    return error_number == ENOENT || error_number == ECONNREFUSED
               ? fail(Errc::kNotFound, fmt::format("no engine listens on {}: start one with "
                                                   "`larder serve`, or say where it is with "
                                                   "runtime-dir",
                                                   path))
               : fail(socket.error());
  }
  ChannelClient client(std::move(*socket));
  const std::string request = TRY(encode_line({"cache"}));
  TRY(send_text(client.socket_, request, -1));
  client.opening_ = std::make_unique<ReplyReader>();
  return client;
}

ChannelClient::ChannelClient(UniqueFd socket)
    : socket_(std::move(socket)), buffer_(kMostChannelPacketBytes) {}

Result<bool> ChannelClient::opened() {
  bool complete = opening_ == nullptr;
  while (!complete) {
    const std::optional<std::string> packet = TRY(receive_text());
    if (!packet) {
      return false;
    }
    complete = TRY(opening_->add(*packet));
  }
  if (const std::unique_ptr<ReplyReader> reply = std::move(opening_)) {
    TRY(reply->take());
  }
  return true;
}

Result<> ChannelClient::send(const CacheCommand& command, int descriptor) {
  TRY(send_text(socket_, encode_cache_command(command), descriptor));
  asked_ = true;
  return {};
}

Result<std::optional<ChannelPacket>> ChannelClient::receive() {
  std::optional<ChannelPacket> packet = TRY(receive_packet());
  while (packet && packet->kind == ChannelPacket::Kind::kState) {
    TRY(keep(packet->text));
    packet = TRY(receive_packet());
  }
  if (packet && !std::exchange(asked_, false)) {
    return fail(Errc::kCorrupt, "the engine answered what nobody asked");
  }
  return packet;
}

Result<std::optional<ChannelPacket>> ChannelClient::receive_packet() {
  const std::optional<std::string> text = TRY(receive_text());
  if (!text) {
    return std::nullopt;
  }
  return TRY(parse_channel_packet(*text));
}

std::optional<CacheState> ChannelClient::take_pushed() {
  return std::exchange(pushed_, std::nullopt);
}

Result<CacheState> ChannelClient::take_state(std::string_view answer) {
  if (answer.ends_with('\n')) {
    answer.remove_suffix(1);
  }
  CacheState state = TRY(parse_cache_state(answer));
  // It is newer than what was pushed before it.
  if (const std::optional<CacheState> before = take_pushed()) {
    add_released(state, *before);
  }
  return state;
}

Result<std::optional<std::string>> ChannelClient::receive_text() {
  const Result<os::Packet> packet = os::receive_packet(socket_, buffer_, os::Wait::kNo);
  if (packet) {
    return std::string(text_of(Bytes(buffer_).first(packet->length)));
  }
  if (packet.error().code() == Errc::kBusy) {
    return std::nullopt;
  }
  return fail(hung_up(packet.error()));
}

Result<> ChannelClient::keep(std::string_view line) {
  CacheState state = TRY(parse_cache_state(line));
  if (pushed_) {
    add_released(state, *pushed_);
  }
  pushed_ = state;
  return {};
}

Result<std::string> body_of(ChannelPacket answer) {
  if (answer.kind == ChannelPacket::Kind::kError) {
    return fail(Error::from_errno(answer.error_number, {}).code(), std::move(answer.text));
  }
  return std::move(answer.text);
}

}  // namespace larder::control
