// The keeper runs as root and reads what an unprivileged engine and any caller send: a message that
// is not exactly what it should be must be refused, and its descriptors closed.
#include "handover/messages.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "handover/lines.h"
#include "os/packet_socket.h"

namespace larder::handover {
namespace {

struct Sockets {
  UniqueFd left, right;
};

Sockets make_sockets() {
  auto pair = os::packet_socket_pair();
  EXPECT_TRUE(pair.has_value());
  return {std::move(pair->first), std::move(pair->second)};
}

void send_bytes(const UniqueFd& socket, Bytes bytes, std::span<const int> descriptors = {}) {
  const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  ASSERT_TRUE(os::send_packet(socket, std::span(&part, 1), descriptors, os::Wait::kYes));
}

// A pipe tells by its end of file when the last copy of its writing end was closed.
struct Pipe {
  UniqueFd reader, writer;
};

Pipe make_pipe() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

bool writer_is_closed(const Pipe& pipe) {
  char byte = 0;
  return ::read(pipe.reader.get(), &byte, 1) == 0;
}

KeeperRequest mount_request(std::string_view spec) {
  KeeperRequest request;
  request.kind = RequestKind::kMount;
  request.spec_length = static_cast<std::uint32_t>(spec.size());
  request.device = 77;
  std::memcpy(request.spec.data(), spec.data(), spec.size());
  return request;
}

TEST(MessagesTest, CarriesAMountRequestWithItsDescriptor) {
  const Sockets sockets = make_sockets();
  Pipe pipe = make_pipe();
  send_bytes(sockets.left, bytes_of_object(mount_request("source=x\n")),
             std::array{pipe.writer.get()});
  pipe.writer.reset();
  {
    const auto received = receive_request(sockets.right, os::Wait::kNo);
    ASSERT_TRUE(received.has_value());
    EXPECT_EQ(spec_of(received->request), "source=x\n");
    EXPECT_EQ(received->request.device, 77U);
    EXPECT_TRUE(received->descriptor.valid());
    EXPECT_FALSE(writer_is_closed(pipe));
  }
  EXPECT_TRUE(writer_is_closed(pipe));
}

TEST(MessagesTest, RefusesRequestsOfWrongLengthVersionKindOrDescriptors) {
  const Sockets sockets = make_sockets();
  const auto refusal = [&](const KeeperRequest& request, std::size_t length, bool with_descriptor) {
    Pipe pipe = make_pipe();
    const std::array<int, 1> descriptor{pipe.writer.get()};
    send_bytes(sockets.left, bytes_of_object(request).first(length),
               with_descriptor ? std::span<const int>(descriptor) : std::span<const int>());
    pipe.writer.reset();
    const auto received = receive_request(sockets.right, os::Wait::kNo);
    EXPECT_FALSE(received.has_value());
    EXPECT_TRUE(writer_is_closed(pipe));
    return received ? Errc::kExists : received.error().code();
  };
  KeeperRequest request = mount_request("a=b\n");
  EXPECT_EQ(refusal(request, sizeof request - 1, true), Errc::kCorrupt);
  EXPECT_EQ(refusal(request, 4, true), Errc::kCorrupt);
  EXPECT_EQ(refusal(request, sizeof request, false), Errc::kCorrupt);
  request.spec_length = kMostSpecBytes + 1;
  EXPECT_EQ(refusal(request, sizeof request, true), Errc::kCorrupt);
  request = mount_request("a=b\n");
  request.version = kProtocolVersion + 1;
  EXPECT_EQ(refusal(request, sizeof request, true), Errc::kNotSupported);
  KeeperRequest stop;
  stop.kind = RequestKind::kStop;
  EXPECT_EQ(refusal(stop, sizeof stop, true), Errc::kCorrupt);
  stop.kind = static_cast<RequestKind>(99);
  EXPECT_EQ(refusal(stop, sizeof stop, false), Errc::kCorrupt);
}

TEST(MessagesTest, RefusesMoreDescriptorsThanAPacketMayCarryAndClosesThem) {
  const Sockets sockets = make_sockets();
  Pipe pipe = make_pipe();
  const std::vector<int> many(os::kMostPacketDescriptors + 1, pipe.writer.get());
  // Past send_packet's own check, as a hostile peer would.
  const KeeperRequest request = mount_request("a=b\n");
  iovec part{const_cast<KeeperRequest*>(&request), sizeof request};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * 16)> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = CMSG_SPACE(sizeof(int) * many.size());
  cmsghdr* const first = CMSG_FIRSTHDR(&header);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof(int) * many.size());
  std::memcpy(CMSG_DATA(first), many.data(), sizeof(int) * many.size());
  ASSERT_GT(::sendmsg(sockets.left.get(), &header, 0), 0);
  pipe.writer.reset();
  const auto received = receive_request(sockets.right, os::Wait::kNo);
  ASSERT_FALSE(received.has_value());
  EXPECT_EQ(received.error().code(), Errc::kCorrupt);
  EXPECT_TRUE(writer_is_closed(pipe));
}

TEST(MessagesTest, CutsALongSentenceToWhatFits) {
  KeeperReply reply;
  put_sentence(reply, std::string(5000, 'x'));
  EXPECT_EQ(sentence_of(reply).size(), kMostSentenceBytes);
  put_sentence(reply, "short");
  EXPECT_EQ(sentence_of(reply), "short");
}

TEST(MessagesTest, CarriesAMessageOfTheChannelWithTextAndDescriptor) {
  const Sockets sockets = make_sockets();
  Pipe pipe = make_pipe();
  Message message;
  message.head.kind = MessageKind::kTakeMount;
  message.head.mount_id = 5;
  message.text = "source=y\n";
  message.descriptors.push_back(std::move(pipe.writer));
  ASSERT_TRUE(send_message(sockets.left, message, os::Wait::kYes));
  const auto received = receive_message(sockets.right, os::Wait::kNo);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->head.mount_id, 5U);
  EXPECT_EQ(received->text, "source=y\n");
  EXPECT_EQ(received->descriptors.size(), 1U);
}

TEST(MessagesTest, TellsAnEmptySocketFromOneThatHungUp) {
  Sockets sockets = make_sockets();
  EXPECT_EQ(receive_message(sockets.right, os::Wait::kNo).error().code(), Errc::kBusy);
  sockets.left.reset();
  EXPECT_EQ(receive_message(sockets.right, os::Wait::kNo).error().code(), Errc::kNotFound);
}

TEST(MessagesTest, RefusesHeadsThatDoNotFitTheirBytes) {
  MessageHead head;
  head.kind = MessageKind::kReady;
  head.text_length = 1;
  EXPECT_EQ(decode_message(bytes_of_object(head), {}).error().code(), Errc::kCorrupt);
  head.text_length = 0;
  EXPECT_TRUE(decode_message(bytes_of_object(head), {}).has_value());
  head.error_number = -5;
  EXPECT_EQ(decode_message(bytes_of_object(head), {}).error().code(), Errc::kCorrupt);
  head.error_number = 0;
  head.kind = static_cast<MessageKind>(40);
  EXPECT_EQ(decode_message(bytes_of_object(head), {}).error().code(), Errc::kCorrupt);
  head.version = 9;
  EXPECT_EQ(decode_message(bytes_of_object(head), {}).error().code(), Errc::kNotSupported);
}

TEST(MessagesTest, DecodesNothingButWhatItWouldHaveSent) {
  const std::uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::byte> bytes(random() % 80);
    for (std::byte& byte : bytes) {
      byte = static_cast<std::byte>(random() % 3);  // small numbers, so that some heads are right
    }
    const auto message = decode_message(bytes, {});
    if (message) {
      EXPECT_EQ(message->text.size() + sizeof(MessageHead), bytes.size());
    }
  }
}

TEST(MessagesTest, HelloTellsTheCacheAndItsSize) {
  const auto hello = decode_hello(encode_hello({"/run/x", "info", "/a\nb", 123456}));
  ASSERT_TRUE(hello.has_value());
  EXPECT_EQ(hello->cache, "/a\nb");
  EXPECT_EQ(hello->cache_size, 123456U);
}

TEST(MessagesTest, HelloTellsOfAsManyDetachedCachesAsFit) {
  std::vector<std::string> tags{"farm", "/a\nb", std::string(5000, 'x'), "last"};
  const auto hello = decode_hello(encode_hello({"/run/x", "info", "", 0, tags}));
  ASSERT_TRUE(hello.has_value());
  EXPECT_EQ(hello->detached, (std::vector<std::string>{"farm", "/a\nb", "last"}));
  tags.assign(1000, "some tag");
  EXPECT_LE(encode_hello({"/run/x", "info", "", 0, tags}).size(), kMostSpecBytes);
}

TEST(MessagesTest, HelloTellsTheRuntimeDirectoryWhateverItsName) {
  const auto hello = decode_hello(encode_hello({"/run/a\nb%=c", "debug"}));
  ASSERT_TRUE(hello.has_value());
  EXPECT_EQ(hello->runtime_directory, "/run/a\nb%=c");
  EXPECT_EQ(hello->log_level, "debug");
  EXPECT_EQ(hello->cache, "");
  EXPECT_FALSE(decode_hello("log_level=info\n").has_value());
}

TEST(LinesTest, RefusesBrokenLines) {
  EXPECT_FALSE(parse_lines("no equals\n").has_value());
  EXPECT_FALSE(parse_lines("a=no end").has_value());
  EXPECT_FALSE(parse_lines("a=%4\n").has_value());
  EXPECT_FALSE(parse_lines("a=%zz\n").has_value());
  EXPECT_FALSE(parse_lines("=x\n").has_value());
  EXPECT_TRUE(parse_lines("").has_value());
}

TEST(LinesTest, FindsOnlyWholeLines) {
  std::string text;
  append_line(text, "option", "cache=/b");
  append_line(text, "cache", "/a b");
  EXPECT_TRUE(has_line(text, "cache", "/a b"));
  EXPECT_FALSE(has_line(text, "cache", "/a"));
  EXPECT_FALSE(has_line(text, "cache", "/b"));
  EXPECT_FALSE(has_line(text, "ache", "/a b"));
}

}  // namespace
}  // namespace larder::handover
