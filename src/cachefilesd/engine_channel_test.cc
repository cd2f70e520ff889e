// What goes over a cache channel must be what docs/protocol.md says, whatever is pushed in between,
// and an engine that hangs up or talks nonsense must be an error and no more.
#include "cachefilesd/engine_channel.h"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefilesd/cache_channel.h"
#include "cachefilesd/config.h"
#include "cachefilesd/limits.h"
#include "cachefilesd/waiter.h"
#include "control/cache_protocol.h"
#include "control/channel_client.h"
#include "culling/candidate.h"
#include "os/filesystem.h"
#include "os/packet_socket.h"
#include "testing/fake_filesystem.h"

namespace larder::cachefilesd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The commands of all limits.
std::vector<std::string> with_limits(std::vector<std::string> before, const Limits& limits,
                                     const std::vector<std::string>& after = {}) {
  for (const control::CacheCommand& command : limit_commands(limits)) {
    before.push_back(control::encode_cache_command(command));
  }
  before.insert(before.end(), after.begin(), after.end());
  return before;
}

constexpr const char* kLine =
    "cull=0 frun=1 fcull=1 fstop=1 brun=1 bcull=1 bstop=1 freleased=2 breleased=10 bsize=1000";

// The engine: whenever the daemon waits it reads what there is, and answers.
class ScriptedEngine final : public Waiter {
 public:
  using Answer = std::function<std::vector<std::string>(const std::string& packet)>;

  explicit ScriptedEngine(UniqueFd socket) : socket_(std::move(socket)) {}

  void send(std::string text) {
    const iovec part{text.data(), text.size()};
    ASSERT_TRUE(os::send_packet(socket_, std::span(&part, 1), {}, os::Wait::kNo).has_value());
  }

  void hang_up() { socket_.reset(); }

  Woken wait(std::span<const int> descriptors, std::optional<Duration> /*at_most*/) override {
    pollfd polled{descriptors[0], POLLIN, 0};
    if (::poll(&polled, 1, 0) > 0) {
      return Woken::kReady;
    }
    std::array<std::byte, 65536> buffer{};
    auto packet = os::receive_packet(socket_, buffer, os::Wait::kNo);
    if (!packet) {
      stop_ = true;  // it would wait for ever
      return Woken::kTold;
    }
    descriptors_ += packet->descriptors.size();
    got_.emplace_back(text_of(Bytes(buffer).first(packet->length)));
    for (const std::string& text : answer_(got_.back())) {
      send(text);
    }
    return Woken::kReady;
  }

  bool told_to_stop() override { return stop_; }

  bool told_to_reload() override { return false; }

  UniqueFd socket_;
  Answer answer_ = [](const std::string&) { return std::vector<std::string>{"ok\n"}; };
  std::vector<std::string> got_;
  std::size_t descriptors_ = 0;
  bool stop_ = false;
};

class EngineChannelTest : public ::testing::Test {
 protected:
  EngineChannelTest() : EngineChannelTest(os::packet_socket_pair().value()) {}

  explicit EngineChannelTest(std::pair<UniqueFd, UniqueFd> ends)
      : engine_(std::move(ends.first)),
        channel_(control::ChannelClient(std::move(ends.second)), engine_) {}

  auto cull(std::size_t count) {
    std::vector<culling::Candidate> objects(count);
    for (std::size_t i = 0; i < count; ++i) {
      objects[i].name = "D" + std::to_string(i);
    }
    return channel_.cull(std::vector{ObjectGroup{"Ivolume/@3f", directory_, objects}});
  }

  testing::FakeFilesystem filesystem_;
  std::shared_ptr<os::Directory> directory_ = filesystem_.open_root("/").value();
  ScriptedEngine engine_;
  EngineChannel channel_;
};

TEST_F(EngineChannelTest, BindsWithWhatTheConfigurationSays) {
  Config config;
  config.directory = "/var/cache/it ";
  config.tag = "one";
  config.size_bytes = 4096;
  config.limits.brun = 20;
  config.limits.bcull = 10;
  const UniqueFd directory(::open("/", O_PATH | O_CLOEXEC));
  ASSERT_TRUE(channel_.bind(config, directory.get()).has_value());
  EXPECT_EQ(engine_.got_,
            with_limits({"dir /var/cache/it ", "tag one", "size 4096"}, config.limits, {"bind"}));
  EXPECT_EQ(engine_.descriptors_, 1U);
}

// An engine's own limits are others.
TEST_F(EngineChannelTest, LimitsThatNobodySaidAreGivenToo) {
  ASSERT_TRUE(channel_.bind(Config(), 0).has_value());
  EXPECT_EQ(engine_.got_, with_limits({"dir"}, Limits(), {"bind"}));
}

TEST_F(EngineChannelTest, GivesWhatHasChangedAndAllLimits) {
  const Config before;
  Config after;
  after.debug_mask = 1;
  after.limits.fstop = 2;
  ASSERT_TRUE(channel_.reconfigure(before, after).has_value());
  EXPECT_EQ(engine_.got_, with_limits({"debug 1"}, after.limits));
}

TEST_F(EngineChannelTest, WhatIsRefusedHalfWayIsTakenBack) {
  Config before;
  before.size_bytes = 4096;
  Config after;
  after.size_bytes = 8192;
  after.debug_mask = 1;
  after.limits.fstop = 2;
  engine_.answer_ = [](const std::string& packet) {
    return std::vector<std::string>{packet == "fstop 2%" ? "error EIO the disk failed\n" : "ok\n"};
  };
  const auto given = channel_.reconfigure(before, after);
  ASSERT_FALSE(given.has_value());
  EXPECT_EQ(given.error().message(), "the disk failed");
  EXPECT_EQ(engine_.got_, with_limits(with_limits({"debug 1", "size 8192"}, after.limits,
                                                  {"debug 0", "size 4096"}),
                                      before.limits));
}

TEST_F(EngineChannelTest, WhatCannotBeTakenBackIsTold) {
  Config after;
  after.debug_mask = 1;
  engine_.answer_ = [](const std::string& packet) {
    return std::vector<std::string>{packet.starts_with("debug") ? "ok\n"
                                                                : "error EIO the disk failed\n"};
  };
  EXPECT_THAT(channel_.reconfigure({}, after).error().message(),
              HasSubstr("the disk failed; and what was given before that holds"));
}

TEST_F(EngineChannelTest, TheEnginesSentenceIsTheError) {
  engine_.answer_ = [](const std::string&) {
    return std::vector<std::string>{"error EBUSY somebody else has it: stop him\n"};
  };
  const auto bound = channel_.bind(Config(), 0);
  ASSERT_FALSE(bound.has_value());
  EXPECT_EQ(bound.error().code(), Errc::kBusy);
  EXPECT_EQ(bound.error().message(), "somebody else has it: stop him");
}

TEST_F(EngineChannelTest, WhatWasPushedIsHeardOnceAndCountsInTheNextState) {
  engine_.send(std::string("state ") + kLine + "\n");
  auto heard = channel_.hear();
  ASSERT_TRUE(heard.has_value() && heard->has_value());
  EXPECT_EQ((*heard)->released_files, 2U);
  EXPECT_FALSE(channel_.hear().value().has_value());

  engine_.answer_ = [](const std::string&) {
    return std::vector<std::string>{std::string("state ") + kLine + "\n",
                                    std::string("ok\n") + kLine + "\n"};
  };
  EXPECT_EQ(channel_.ask_state().value().released_files, 4U);
  EXPECT_THAT(engine_.got_, ElementsAre("state"));
}

TEST_F(EngineChannelTest, CullsInBatchesAndReadsTheAnswers) {
  engine_.answer_ = [](const std::string&) {
    return std::vector<std::string>{std::string("state ") + kLine + "\n",
                                    "ok\n4096\nEBUSY\nENOENT\n"};
  };
  const auto answers = cull(3);
  ASSERT_TRUE(answers.has_value()) << answers.error().message();
  EXPECT_THAT(engine_.got_, ElementsAre("cull Ivolume/@3f/D0\nD1\nD2"));
  EXPECT_EQ((*answers)[0].value(), 4096U);
  EXPECT_EQ((*answers)[1].error().code(), Errc::kBusy);
  EXPECT_EQ((*answers)[2].error().code(), Errc::kNotFound);
  EXPECT_TRUE(channel_.hear().value().has_value());
}

TEST_F(EngineChannelTest, MoreObjectsThanFitAreAskedForInTurn) {
  engine_.answer_ = [](const std::string& packet) {
    std::string body = "ok\n";
    for (const char c : packet + "\n") {
      body += c == '\n' ? "1\n" : "";
    }
    return std::vector<std::string>{body};
  };
  EXPECT_EQ(cull(1100).value().size(), 1100U);
  EXPECT_EQ(engine_.got_.size(), 3U);
}

// Of one object the answer is the reply itself.
TEST_F(EngineChannelTest, OneObjectMayBeInUseOrNotToBeRemoved) {
  engine_.answer_ = [](const std::string&) {
    return std::vector<std::string>{"error EBUSY it is in use\n"};
  };
  EXPECT_EQ(cull(1).value().at(0).error().code(), Errc::kBusy);
  engine_.answer_ = [](const std::string&) {
    return std::vector<std::string>{"error EROFS unlink\n"};
  };
  EXPECT_EQ(cull(1).value().at(0).error().code(), Errc::kPermission);
  engine_.answer_ = [](const std::string&) {
    return std::vector<std::string>{"error EIO the disk failed\n"};
  };
  EXPECT_EQ(cull(1).error().code(), Errc::kIo);
}

TEST_F(EngineChannelTest, AnEngineThatIsGoneIsNoticedEverywhere) {
  engine_.hang_up();
  EXPECT_EQ(channel_.hear().error().code(), Errc::kCacheDead);
  EXPECT_EQ(channel_.ask_state().error().code(), Errc::kCacheDead);
}

TEST_F(EngineChannelTest, AnAnswerForOtherObjectsIsAnError) {
  engine_.answer_ = [](const std::string&) { return std::vector<std::string>{"ok\n1\n"}; };
  EXPECT_THAT(cull(2).error().message(), HasSubstr("answered for 1 of 2 objects"));
}

TEST_F(EngineChannelTest, ASignalEndsEveryWait) {
  engine_.stop_ = true;
  EXPECT_EQ(channel_.ask_state().error().code(), Errc::kCancelled);
}

// Answers the request for a channel, by its socket in a directory.
class Doorkeeper final : public Waiter {
 public:
  Doorkeeper(const UniqueFd& listener, std::string answer)
      : listener_(listener), answer_(std::move(answer)) {}

  Woken wait(std::span<const int> /*descriptors*/, std::optional<Duration> /*at_most*/) override {
    client_ = os::accept_for_packets(listener_).value();
    std::array<std::byte, 100> buffer{};
    const auto packet = os::receive_packet(client_, buffer, os::Wait::kNo).value();
    EXPECT_EQ(text_of(Bytes(buffer).first(packet.length)), "cache");
    const iovec part{answer_.data(), answer_.size()};
    EXPECT_TRUE(os::send_packet(client_, std::span(&part, 1), {}, os::Wait::kNo).has_value());
    return Woken::kReady;
  }

  bool told_to_stop() override { return false; }

  bool told_to_reload() override { return false; }

 private:
  const UniqueFd& listener_;
  std::string answer_;
  UniqueFd client_;
};

TEST(EngineChannelConnectTest, AsksForAChannel) {
  std::string directory = ::testing::TempDir() + "channel_XXXXXX";
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/control.sock";
  const UniqueFd listener = os::listen_for_packets(path, 0600).value();
  Doorkeeper willing(listener, "ok\n");
  EXPECT_TRUE(EngineChannel::connect(directory, willing).has_value());
  Doorkeeper unwilling(listener, "error only root may\n");
  const auto refused = EngineChannel::connect(directory, unwilling);
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error().message(), HasSubstr("only root may"));
  ::unlink(path.c_str());
  ::rmdir(directory.c_str());
}

}  // namespace
}  // namespace larder::cachefilesd
