#include "handover/messages.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/uio.h>

#include "base/byte_count.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/lines.h"
#include "handover/table.h"
#include "os/packet_socket.h"

namespace larder::handover {

namespace {

constexpr std::size_t kMostMessageBytes = sizeof(MessageHead) + kMostSpecBytes;

std::unexpected<Error> other_version(std::uint32_t version) {
  return fail(Errc::kNotSupported,
              fmt::format("the other side speaks version {} of the keeper's protocol, this program "
                          "version {}: stop the keeper with `larder stop` and start it again",
                          version, kProtocolVersion));
}

// How many descriptors belong to a message; nullopt-like -1 for a kind that does not exist.
int descriptors_of(const MessageHead& head) {
  switch (head.kind) {
    case MessageKind::kHello:
      return static_cast<int>(table_shapes().size()) + 1;
    case MessageKind::kTakeMount:
    case MessageKind::kBackingOpen:
      return 1;
    case MessageKind::kCacheOpened:
      return head.error_number == 0 ? 1 : 0;
    case MessageKind::kReleaseMount:
    case MessageKind::kStop:
    case MessageKind::kTrouble:
    case MessageKind::kBackingOpened:
    case MessageKind::kReady:
    case MessageKind::kFailed:
    case MessageKind::kUnmounted:
    case MessageKind::kBackingClose:
    case MessageKind::kOpenCache:
    case MessageKind::kStopping:
    case MessageKind::kDetached:
    case MessageKind::kAttached:
      return 0;
  }
  return -1;
}

template <class Object>
Result<Object> object_of(Bytes bytes) {
  if (bytes.size() != sizeof(Object)) {
    return fail(Errc::kCorrupt, fmt::format("a message of {} bytes where {} were expected",
                                            bytes.size(), sizeof(Object)));
  }
  Object object;
  std::memcpy(static_cast<void*>(&object), bytes.data(), sizeof object);
  return object;
}

}  // namespace

void put_sentence(KeeperReply& reply, std::string_view sentence) {
  reply.sentence_length =
      static_cast<std::uint32_t>(std::min(sentence.size(), reply.sentence.size()));
  std::copy_n(sentence.begin(), reply.sentence_length, reply.sentence.begin());
}

std::string_view spec_of(const KeeperRequest& request) {
  return {request.spec.data(), request.spec_length};
}

std::string_view sentence_of(const KeeperReply& reply) {
  return {reply.sentence.data(), reply.sentence_length};
}

Result<ReceivedRequest> receive_request(const UniqueFd& socket, os::Wait wait) {
  std::array<std::byte, sizeof(KeeperRequest)> buffer{};
  os::Packet packet = TRY(os::receive_packet(socket, buffer, wait));
  ReceivedRequest received{};
  received.request = TRY(object_of<KeeperRequest>(Bytes(buffer).first(packet.length)));
  const KeeperRequest& request = received.request;
  if (request.version != kProtocolVersion) {
    return other_version(request.version);
  }
  const bool known = request.kind >= RequestKind::kMount && request.kind <= RequestKind::kPids;
  const std::size_t expected = request.kind == RequestKind::kMount ? 1 : 0;
  if (!known || request.spec_length > kMostSpecBytes || packet.descriptors.size() != expected) {
    return fail(Errc::kCorrupt, "a request that makes no sense");
  }
  if (expected == 1) {
    received.descriptor = std::move(packet.descriptors.front());
  }
  return received;
}

Result<KeeperReply> receive_reply(const UniqueFd& socket) {
  std::array<std::byte, sizeof(KeeperReply)> buffer{};
  const os::Packet packet = TRY(os::receive_packet(socket, buffer, os::Wait::kYes));
  const KeeperReply reply = TRY(object_of<KeeperReply>(Bytes(buffer).first(packet.length)));
  if (reply.version != kProtocolVersion) {
    return other_version(reply.version);
  }
  if (reply.sentence_length > kMostSentenceBytes || !packet.descriptors.empty()) {
    return fail(Errc::kCorrupt, "a reply that makes no sense");
  }
  return reply;
}

Result<> send_message(const UniqueFd& socket, const Message& message, os::Wait wait) {
  CHECK(message.text.size() <= kMostSpecBytes);
  CHECK(std::cmp_equal(message.descriptors.size(), descriptors_of(message.head)));
  MessageHead head = message.head;
  head.text_length = static_cast<std::uint32_t>(message.text.size());
  std::vector<int> descriptors;
  descriptors.reserve(message.descriptors.size());
  for (const UniqueFd& descriptor : message.descriptors) {
    descriptors.push_back(descriptor.get());
  }
  const std::array<iovec, 2> parts{
      {{&head, sizeof head}, {const_cast<char*>(message.text.data()), message.text.size()}}};
  return os::send_packet(socket, parts, descriptors, wait);
}

Result<Message> receive_message(const UniqueFd& socket, os::Wait wait) {
  std::array<std::byte, kMostMessageBytes> buffer{};
  os::Packet packet = TRY(os::receive_packet(socket, buffer, wait));
  return decode_message(Bytes(buffer).first(packet.length), std::move(packet.descriptors));
}

Result<Message> decode_message(Bytes bytes, std::vector<UniqueFd> descriptors) {
  if (bytes.size() < sizeof(MessageHead)) {
    return fail(Errc::kCorrupt, fmt::format("a message of {} bytes", bytes.size()));
  }
  Message message;
  std::memcpy(&message.head, bytes.data(), sizeof(MessageHead));
  if (message.head.version != kProtocolVersion) {
    return other_version(message.head.version);
  }
  const std::string_view text = text_of(bytes.subspan(sizeof(MessageHead)));
  if (message.head.text_length != text.size() || text.size() > kMostSpecBytes ||
      message.head.error_number < 0 ||
      !std::cmp_equal(descriptors.size(), descriptors_of(message.head))) {
    return fail(Errc::kCorrupt, fmt::format("a message of kind {} that makes no sense",
                                            std::to_underlying(message.head.kind)));
  }
  message.text = text;
  message.descriptors = std::move(descriptors);
  return message;
}

Error received_error(std::int32_t error_number, std::string sentence) {
  return {Error::from_errno(error_number, "").code(), std::move(sentence)};
}

std::string encode_hello(const Hello& hello) {
  std::string text;
  append_line(text, "runtime_dir", hello.runtime_directory);
  append_line(text, "log_level", hello.log_level);
  if (!hello.cache.empty()) {
    append_line(text, "cache", hello.cache);
  }
  if (hello.cache_size != 0) {
    append_line(text, "cache_size", std::to_string(hello.cache_size));
  }
  for (const std::string& tag : hello.detached) {
    const std::size_t before = text.size();
    append_line(text, "detached", tag);
    if (text.size() > kMostSpecBytes) {
      text.resize(before);
    }
  }
  return text;
}

namespace {

Result<> apply_line(Hello& hello, std::string_view key, std::string value) {
  if (key == "runtime_dir") {
    hello.runtime_directory = std::move(value);
  } else if (key == "log_level") {
    hello.log_level = std::move(value);
  } else if (key == "cache") {
    hello.cache = std::move(value);
  } else if (key == "cache_size") {
    hello.cache_size = TRY(parse_byte_count(value));
  } else if (key == "detached") {
    hello.detached.push_back(std::move(value));
  }
  return {};
}

}  // namespace

Result<Hello> decode_hello(std::string_view text) {
  Hello hello;
  for (auto& [key, value] : TRY(parse_lines(text))) {
    TRY(apply_line(hello, key, std::move(value)));
  }
  if (!hello.runtime_directory.starts_with('/')) {
    return fail(Errc::kCorrupt, "the keeper named no runtime directory");
  }
  return hello;
}

}  // namespace larder::handover
