// What is pushed at any moment must not be taken for an answer, nothing released may be lost, and
// an engine that hangs up or talks nonsense must be an error and no more.
#include "control/channel_client.h"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "os/packet_socket.h"

namespace larder::control {
namespace {

using ::testing::HasSubstr;

constexpr const char* kStateLine =
    "cull=1 frun=1 fcull=1 fstop=1 brun=1 bcull=1 bstop=1 freleased=2 breleased=10 bsize=1000";

void send_packet_text(const UniqueFd& socket, std::string text) {
  const iovec part{text.data(), text.size()};
  ASSERT_TRUE(os::send_packet(socket, std::span(&part, 1), {}, os::Wait::kNo).has_value());
}

// The test is the engine.
class ChannelClientTest : public ::testing::Test {
 protected:
  ChannelClientTest() : ChannelClientTest(os::packet_socket_pair().value()) {}

  explicit ChannelClientTest(std::pair<UniqueFd, UniqueFd> ends)
      : engine_(std::move(ends.first)), client_(std::move(ends.second)) {}

  void answer(std::string text) { send_packet_text(engine_, std::move(text)); }

  void push() { answer(std::string("state ") + kStateLine + "\n"); }

  // What it has asked; counts the descriptors that came with it.
  std::string asked() {
    std::array<std::byte, 65536> buffer{};
    const auto packet = os::receive_packet(engine_, buffer, os::Wait::kNo).value();
    descriptors_ += packet.descriptors.size();
    return std::string(text_of(Bytes(buffer).first(packet.length)));
  }

  UniqueFd engine_;
  ChannelClient client_;
  std::size_t descriptors_ = 0;
};

TEST_F(ChannelClientTest, ACommandGetsItsAnswer) {
  const UniqueFd directory(::open("/", O_PATH | O_CLOEXEC));
  ASSERT_TRUE(client_.send({CacheVerb::kDir, "/var/cache/it ", {}}, directory.get()).has_value());
  EXPECT_EQ(asked(), "dir /var/cache/it ");
  EXPECT_EQ(descriptors_, 1U);
  EXPECT_FALSE(client_.receive().value().has_value());
  answer("ok\n12\n");
  EXPECT_EQ(body_of(client_.receive().value().value()).value(), "12\n");

  ASSERT_TRUE(client_.send({CacheVerb::kBind, {}, {}}).has_value());
  answer("error EBUSY somebody else has it: stop him\n");
  const auto refused = body_of(client_.receive().value().value());
  EXPECT_EQ(refused.error().code(), Errc::kBusy);
  EXPECT_EQ(refused.error().message(), "somebody else has it: stop him");
}

TEST_F(ChannelClientTest, NothingReleasedIsLost) {
  push();
  push();
  EXPECT_FALSE(client_.receive().value().has_value());
  EXPECT_EQ(client_.pushed().value().released_files, 4U);
  EXPECT_EQ(client_.take_pushed().value().released_blocks, 32U);
  EXPECT_FALSE(client_.pushed().has_value());

  // In front of an answer, and behind it.
  ASSERT_TRUE(client_.send({CacheVerb::kState, {}, {}}).has_value());
  push();
  answer(std::string("ok\n") + kStateLine + "\n");
  push();
  const ChannelPacket line = client_.receive().value().value();
  const CacheState state = client_.take_state(line.text).value();
  EXPECT_TRUE(state.culling);
  EXPECT_EQ(state.released_files, 4U);
  EXPECT_FALSE(client_.receive().value().has_value());
  EXPECT_EQ(client_.take_pushed().value().released_files, 2U);
}

TEST_F(ChannelClientTest, AnEngineThatIsGoneIsNoticedEverywhere) {
  engine_.reset();
  EXPECT_EQ(client_.receive().error().code(), Errc::kCacheDead);
  EXPECT_EQ(client_.send({CacheVerb::kBind, {}, {}}).error().code(), Errc::kCacheDead);
}

TEST_F(ChannelClientTest, NonsenseIsAnError) {
  for (const char* const nonsense : {"fine\n", "state x\n", "error EWHAT no\n", "ok", "state"}) {
    ASSERT_TRUE(client_.send({CacheVerb::kState, {}, {}}).has_value());
    answer(nonsense);
    EXPECT_EQ(client_.receive().error().code(), Errc::kCorrupt) << nonsense;
  }
  EXPECT_EQ(client_.take_state("").error().code(), Errc::kCorrupt);
  EXPECT_EQ(client_.take_state("cull=1 frun=x").error().code(), Errc::kCorrupt);
}

TEST_F(ChannelClientTest, AnAnswerThatNobodyAskedForIsAnError) {
  answer("ok\n");
  EXPECT_EQ(client_.receive().error().code(), Errc::kCorrupt);
  ASSERT_TRUE(client_.send({CacheVerb::kBind, {}, {}}).has_value());
  answer("ok\n");
  answer("ok\n");
  EXPECT_TRUE(client_.receive().value().has_value());
  EXPECT_EQ(client_.receive().error().code(), Errc::kCorrupt);
}

class ChannelClientConnectTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(::mkdtemp(directory_.data()), nullptr); }

  void TearDown() override {
    ::unlink(path().c_str());
    ::rmdir(directory_.c_str());
  }

  [[nodiscard]] std::string path() const { return directory_ + "/control.sock"; }

  std::string directory_ = ::testing::TempDir() + "client_XXXXXX";
};

TEST_F(ChannelClientConnectTest, ItIsAChannelOnceTheEngineSaysSo) {
  const UniqueFd listener = os::listen_for_packets(path(), 0600).value();
  ChannelClient client = ChannelClient::connect(directory_).value();
  const UniqueFd engine = os::accept_for_packets(listener).value();
  std::array<std::byte, 100> buffer{};
  const auto request = os::receive_packet(engine, buffer, os::Wait::kNo).value();
  EXPECT_EQ(text_of(Bytes(buffer).first(request.length)), "cache");
  EXPECT_FALSE(client.opened().value());
  send_packet_text(engine, "ok\n");
  EXPECT_TRUE(client.opened().value());
  EXPECT_TRUE(client.opened().value());
}

TEST_F(ChannelClientConnectTest, TheEngineMayRefuse) {
  const UniqueFd listener = os::listen_for_packets(path(), 0600).value();
  ChannelClient client = ChannelClient::connect(directory_).value();
  const UniqueFd engine = os::accept_for_packets(listener).value();
  send_packet_text(engine, "error only root may\n");
  EXPECT_THAT(client.opened().error().message(), HasSubstr("only root may"));
}

TEST_F(ChannelClientConnectTest, NobodyListens) {
  const auto absent = ChannelClient::connect(directory_);
  EXPECT_EQ(absent.error().code(), Errc::kNotFound);
  EXPECT_THAT(absent.error().message(), HasSubstr("no engine listens on"));
  os::listen_for_packets(path(), 0600).value().reset();
  EXPECT_EQ(ChannelClient::connect(directory_).error().code(), Errc::kNotFound);
}

// An engine that does not answer must not make anybody wait.
TEST_F(ChannelClientConnectTest, TooManyWaitAlready) {
  const UniqueFd listener = os::listen_for_packets(path(), 0600).value();
  std::vector<ChannelClient> waiting;
  Errc code = Errc::kNotFound;
  while (waiting.size() < 200 && code == Errc::kNotFound) {
    Result<ChannelClient> client = ChannelClient::connect(directory_);
    if (client) {
      waiting.push_back(std::move(*client));
    } else {
      code = client.error().code();
    }
  }
  EXPECT_EQ(code, Errc::kBusy);
}

}  // namespace
}  // namespace larder::control
