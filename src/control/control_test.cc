// Strangers may connect to the control socket: their bytes must be understood or refused, and
// nothing that they do or leave undone may keep others from being answered.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/cache_protocol.h"
#include "control/cache_session.h"
#include "control/client.h"
#include "control/line_codec.h"
#include "control/server.h"
#include "os/packet_socket.h"

namespace larder::control {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

using Words = std::vector<std::string>;

TEST(LineCodecTest, AnyBytesSurviveTheWay) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    Words words(1 + random() % 4);
    for (std::string& word : words) {
      word.resize(1 + random() % 20);
      std::ranges::generate(word, [&] { return static_cast<char>(1 + random() % 255); });
    }
    const auto line = encode_line(words);
    ASSERT_TRUE(line.has_value());
    EXPECT_EQ(decode_line(*line).value(), words);
  }
}

TEST(LineCodecTest, RefusesWhatNobodyEncodes) {
  for (const char* const line : {"", " ", "a  b", "a ", " a", "a%", "a%4", "%zz", "%00", "a\tb"}) {
    EXPECT_FALSE(decode_line(line).has_value()) << '"' << line << '"';
  }
  EXPECT_FALSE(decode_line(std::string(kMostLineBytes + 1, 'a')).has_value());
  EXPECT_FALSE(decode_line("a b c d e f g h i j k l m n o p q").has_value());
  EXPECT_FALSE(encode_line({"a", ""}).has_value());
  EXPECT_FALSE(encode_line({}).has_value());
  EXPECT_THAT(decode_line("status\n").value(), ElementsAre("status"));
}

TEST(LineCodecTest, LongRepliesComeInSeveralPackets) {
  const std::string body(3 * kMostPacketBytes, 'x');
  ReplyReader reader;
  bool complete = false;
  for (const std::string& packet : encode_reply(body)) {
    EXPECT_FALSE(complete);
    EXPECT_LE(packet.size(), kMostPacketBytes);
    complete = reader.add(packet).value();
  }
  ASSERT_TRUE(complete);
  EXPECT_EQ(reader.take().value(), body);
}

TEST(LineCodecTest, ErrorsAreOneLine) {
  ReplyReader reader;
  const auto packets = encode_reply(fail(Errc::kInvalid, "two\nlines"));
  EXPECT_THAT(packets, ElementsAre("error two lines\n"));
  ASSERT_TRUE(reader.add(packets.front()).value());
  EXPECT_EQ(reader.take().error().context(), "two lines");
}

TEST(LineCodecTest, RefusesRepliesThatMakeNoSense) {
  for (const char* const packet : {"", "ok", "error", "error x", "mor", "OK\n"}) {
    EXPECT_FALSE(ReplyReader().add(packet).has_value()) << packet;
  }
}

class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    std::string pattern = "/tmp/larder-control-test-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    ::chmod(directory_.c_str(), 0755);
    listener_ = os::listen_for_packets(directory_ + "/control.sock", 0666).value();
  }

  ServerTest(const ServerTest&) = delete;
  ServerTest& operator=(const ServerTest&) = delete;

  ~ServerTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void start() {
    Handlers handlers;
    handlers["status"] = [](const Request&, Responder responder) { responder.answer("{}"); };
    handlers["log"] = [](const Request&, Responder responder) {
      responder.answer(std::string(std::size_t{4} * 1024 * 1024, 'l'));
    };
    handlers["flush"] = [](const Request& request, Responder responder) {
      responder.answer(request.arguments.at(0));
    };
    handlers["probe"] = [this](const Request&, Responder responder) {
      kept_.set_value(std::move(responder));
    };
    server_ = Server::start(UniqueFd(::dup(listener_.get())), std::move(handlers), clock_,
                            [this](const os::PeerCredentials& peer, StatePusher push) {
                              EXPECT_EQ(peer.pid, ::getpid());
                              push_ = std::move(push);
                              return std::make_unique<ScriptedSession>(*this);
                            })
                  .value();
  }

  [[nodiscard]] Result<std::string> ask_server(const Words& words) const {
    return ask(directory_, words, seconds(20));
  }

  [[nodiscard]] UniqueFd connect() const {
    return os::connect_for_packets(directory_ + "/control.sock").value();
  }

  // As whom the connection counts: this thread is that user meanwhile, the server's stays root's.
  [[nodiscard]] UniqueFd connect_as(uid_t uid) const {
    EXPECT_EQ(::syscall(SYS_setresuid, -1, uid, -1), 0);
    UniqueFd socket = connect();
    EXPECT_EQ(::syscall(SYS_setresuid, -1, 0, -1), 0);
    return socket;
  }

  static void send(const UniqueFd& socket, std::string text) {
    const iovec part{text.data(), text.size()};
    ASSERT_TRUE(os::send_packet(socket, std::span(&part, 1), {}, os::Wait::kYes));
  }

  // Answers with what it was told; "cull" keeps the responder.
  class ScriptedSession final : public CacheSession {
   public:
    explicit ScriptedSession(ServerTest& test) : test_(test) {}

    ScriptedSession(const ScriptedSession&) = delete;
    ScriptedSession& operator=(const ScriptedSession&) = delete;

    ~ScriptedSession() override {
      ++test_.released_;
      test_.released_.notify_all();
    }

    void execute(CacheCommand command, std::vector<UniqueFd> descriptors,
                 Responder responder) override {
      if (command.verb == CacheVerb::kCull) {
        test_.kept_.set_value(std::move(responder));
      } else if (command.verb == CacheVerb::kBind) {
        responder.answer(fail(Errc::kBusy, "in use:\nwait"));
      } else {
        responder.answer(
            fmt::format("{}|{}|{}", name_of(command.verb), command.argument, descriptors.size()));
      }
    }

   private:
    ServerTest& test_;
  };

  static std::string receive(const UniqueFd& socket) {
    std::array<std::byte, kMostChannelPacketBytes> buffer{};
    const auto packet = os::receive_packet(socket, buffer, os::Wait::kYes);
    return packet ? std::string(text_of(Bytes(buffer).first(packet->length))) : "hung up";
  }

  // The server's thread is another user's, as an engine's is.
  void start_as(uid_t user) {
    EXPECT_EQ(::syscall(SYS_setresuid, user, -1, -1), 0);
    start();
    EXPECT_EQ(::syscall(SYS_setresuid, 0, -1, -1), 0);
  }

  [[nodiscard]] UniqueFd open_channel() const { return open_channel(connect()); }

  [[nodiscard]] static UniqueFd open_channel(UniqueFd channel) {
    send(channel, "cache");
    EXPECT_EQ(receive(channel), "ok\n");
    return channel;
  }

  SteadyClock clock_;
  std::atomic<int> released_{0};  // sessions
  std::optional<StatePusher> push_;
  std::string directory_;
  UniqueFd listener_;
  std::promise<Responder> kept_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, AnswersCommands) {
  start();
  EXPECT_EQ(ask_server({"status"}).value(), "{}");
  EXPECT_EQ(ask_server({"flush", "/a b\n%"}).value(), "/a b\n%");
  EXPECT_EQ(ask_server({"log"}).value().size(), 4U * 1024 * 1024);
  EXPECT_THAT(ask_server({"help"}).value(), HasSubstr("probe SOURCE [OPTIONS]"));
}

TEST(HelpTest, SaysWhoMayGiveACommand) {
  EXPECT_THAT(help_text(), HasSubstr("this list\n"));
  EXPECT_THAT(help_text(), HasSubstr("oldest first (root only)\n"));
  EXPECT_THAT(help_text(), HasSubstr("docs/protocol.md (root and the engine's user only)\n"));
}

TEST_F(ServerTest, RefusesWithASentence) {
  start();
  EXPECT_THAT(ask_server({"stats"}).error().context(), HasSubstr("unknown command \"stats\""));
  EXPECT_THAT(ask_server({"flush"}).error().context(), HasSubstr("write flush PATH"));
  EXPECT_THAT(ask_server({"status", "x"}).error().context(), HasSubstr("write status"));
  EXPECT_THAT(ask_server({"version"}).error().context(), HasSubstr("does not know version"));
  const UniqueFd socket = connect();
  send(socket, std::string(2 * kMostLineBytes, 'x'));
  std::vector<std::byte> buffer(kMostPacketBytes);
  const auto packet = os::receive_packet(socket, buffer, os::Wait::kYes);
  ASSERT_TRUE(packet.has_value());
  EXPECT_EQ(text_of(Bytes(buffer).first(packet->length)), "error the request is too long\n");
}

TEST_F(ServerTest, AnswersLaterFromAnotherThreadWhileOthersAreServed) {
  start();
  auto slow = std::async(std::launch::async, [this] { return ask_server({"probe", "x"}); });
  Responder responder = kept_.get_future().get();
  EXPECT_TRUE(ask_server({"status"}).has_value());
  responder.answer("found");
  EXPECT_EQ(slow.get().value(), "found");
}

TEST_F(ServerTest, AResponderThatIsDroppedStillAnswers) {
  start();
  auto asked = std::async(std::launch::async, [this] { return ask_server({"probe", "x"}); });
  {
    const Responder dropped = kept_.get_future().get();
  }
  EXPECT_THAT(asked.get().error().context(), HasSubstr("no answer"));
}

TEST_F(ServerTest, AResponderMayOutliveServerAndClient) {
  start();
  auto asked = std::async(std::launch::async, [this] { return ask_server({"probe", "x"}); });
  Responder responder = kept_.get_future().get();
  server_.reset();
  EXPECT_EQ(asked.get().error().code(), Errc::kIo);
  responder.answer("too late");
}

TEST_F(ServerTest, SilentAndDeafClientsDoNotKeepOthersOut) {
  start();
  std::vector<UniqueFd> sockets;
  for (std::size_t i = 0; i < 3 * Server::kMostConnections; ++i) {
    sockets.push_back(connect());
    if (i % 2 == 0) {
      send(sockets.back(), "log");  // four megabytes that nobody reads
    }
  }
  EXPECT_EQ(ask_server({"status"}).value(), "{}");
}

TEST_F(ServerTest, SeveralRequestsOnOneConnectionAreAnsweredInOrder) {
  start();
  const UniqueFd socket = connect();
  send(socket, "flush a");
  send(socket, "flush b");
  std::vector<std::byte> buffer(kMostPacketBytes);
  for (const char* const expected : {"ok\na", "ok\nb"}) {
    const auto packet = os::receive_packet(socket, buffer, os::Wait::kYes);
    ASSERT_TRUE(packet.has_value());
    EXPECT_EQ(text_of(Bytes(buffer).first(packet->length)), expected);
  }
}

TEST_F(ServerTest, AConnectionBecomesACacheChannel) {
  start();
  const UniqueFd channel = open_channel();
  send(channel, "tag  a b ");
  EXPECT_EQ(receive(channel), "ok\ntag|a b |0");
  send(channel, "status");
  EXPECT_EQ(receive(channel), "error EOPNOTSUPP \"status\" is no command of a cache channel\n");
  send(channel, "bind");
  EXPECT_EQ(receive(channel), "error EBUSY in use: wait\n");
  std::string dir = "dir /x";
  const iovec part{dir.data(), dir.size()};
  ASSERT_TRUE(
      os::send_packet(channel, std::span(&part, 1), std::array{STDIN_FILENO}, os::Wait::kYes));
  EXPECT_EQ(receive(channel), "ok\ndir|/x|1");
  send(channel, std::string(kMostChannelPacketBytes + 2, 'x'));
  EXPECT_EQ(receive(channel), "error EOPNOTSUPP the request is too long\n");
}

TEST_F(ServerTest, HangingUpReleasesWhatAChannelHolds) {
  start();
  UniqueFd channel = open_channel();
  channel.reset();
  released_.wait(0);
}

TEST_F(ServerTest, TheServersEndReleasesWhatAChannelHolds) {
  start();
  const UniqueFd channel = open_channel();
  server_.reset();
  EXPECT_EQ(released_, 1);
  EXPECT_EQ(receive(channel), "hung up");
  push_->push({});
}

TEST_F(ServerTest, StateIsPushedInTheOrderInWhichItWasTrue) {
  start();
  const UniqueFd channel = open_channel();
  CacheState state;
  state.culling = true;
  push_->push(state);
  EXPECT_EQ(receive(channel), "state " + encode_cache_state(state) + "\n");
  send(channel, "cull x");
  Responder responder = kept_.get_future().get();
  push_->push(state);
  responder.answer(std::string("answer"));
  state.culling = false;
  push_->push(state);
  EXPECT_TRUE(receive(channel).starts_with("state cull=1"));
  EXPECT_EQ(receive(channel), "ok\nanswer");
  EXPECT_TRUE(receive(channel).starts_with("state cull=0"));
}

// It gets no more than fits into its socket, and then the newest.
TEST_F(ServerTest, WhoDoesNotReadMissesWhatIsOutdated) {
  start();
  const UniqueFd channel = open_channel();
  constexpr std::uint64_t kPushes = 20000;
  CacheState state;
  for (std::uint64_t i = 1; i <= kPushes; ++i) {
    state.frun = i;
    push_->push(state);
  }
  std::uint64_t got = 0;
  std::uint64_t last = 0;
  while (last != kPushes) {
    const std::string packet = receive(channel);
    const std::uint64_t number =
        parse_cache_state(parse_channel_packet(packet).value().text).value().frun;
    ASSERT_GT(number, last);
    last = number;
    ++got;
  }
  EXPECT_LT(got, kPushes);
}

// Whoever waits for something to come out of use is told of it once.
TEST_F(ServerTest, WhatCameOutOfUseIsNotOutdated) {
  start();
  const UniqueFd channel = open_channel();
  constexpr std::uint64_t kPushes = 20000;
  CacheState state;
  state.released_files = 1;
  state.released_blocks = 8;
  for (std::uint64_t i = 1; i <= kPushes; ++i) {
    state.frun = i;
    push_->push(state);
  }
  std::uint64_t files = 0;
  std::uint64_t blocks = 0;
  std::uint64_t last = 0;
  while (last != kPushes) {
    const CacheState got =
        parse_cache_state(parse_channel_packet(receive(channel)).value().text).value();
    files += got.released_files;
    blocks += got.released_blocks;
    last = got.frun;
  }
  EXPECT_EQ(files, kPushes);
  EXPECT_EQ(blocks, kPushes * 8);
}

TEST_F(ServerTest, ThereAreNotManyChannels) {
  start();
  std::vector<UniqueFd> channels;
  channels.reserve(Server::kMostChannels);
  for (std::size_t i = 0; i < Server::kMostChannels; ++i) {
    channels.push_back(open_channel());
  }
  const UniqueFd one_more = connect();
  send(one_more, "cache");
  EXPECT_EQ(receive(one_more), "error there are 16 cache channels: no more\n");
  channels.pop_back();
  released_.wait(0);
  channels.push_back(open_channel());
}

// Neither what the same user opens nor what root does.
TEST_F(ServerTest, NobodyTakesThePlaceOfAChannel) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  constexpr uid_t kUser = 40000;
  start_as(kUser);
  std::vector<UniqueFd> channels;
  channels.reserve(Server::kMostChannels);
  std::vector<UniqueFd> others;
  for (std::size_t i = 0; i < Server::kMostChannels; ++i) {
    channels.push_back(open_channel(connect_as(kUser)));
  }
  for (std::size_t i = 0; i < 2 * Server::kMostConnections; ++i) {
    others.push_back(connect_as(kUser));
    others.push_back(connect());
  }
  EXPECT_EQ(ask_server({"status"}).value(), "{}");
  for (const UniqueFd& channel : channels) {
    send(channel, "tag a");
    EXPECT_EQ(receive(channel), "ok\ntag|a|0");
  }
  EXPECT_EQ(released_, 0);
}

TEST_F(ServerTest, UsersFillOnlyTheirOwnPlaces) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  start();
  const UniqueFd own = connect();
  std::vector<UniqueFd> strangers;
  strangers.reserve(2 * Server::kMostConnections);
  constexpr std::size_t kUsers = Server::kMostConnections / Server::kMostConnectionsPerUser;
  for (std::size_t i = 0; i < Server::kMostConnections; ++i) {
    strangers.push_back(connect_as(static_cast<uid_t>(40000 + i % kUsers)));
  }
  const UniqueFd one_too_many = connect_as(50000);
  EXPECT_EQ(receive(one_too_many), "hung up");
  for (std::size_t i = 0; i < Server::kMostConnections - 2; ++i) {
    strangers.push_back(connect());
  }
  const UniqueFd newest = connect_as(40000);
  for (const UniqueFd* const socket :
       std::array<const UniqueFd*, 3>{&newest, &own, &strangers[1]}) {
    send(*socket, "status");
    EXPECT_EQ(receive(*socket), "ok\n{}");
  }
  EXPECT_EQ(receive(strangers.front()), "hung up");
}

TEST_F(ServerTest, OnlyRootMayGiveCommandsThatChangeSomething) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  // Before there are threads: who forks beside them may take a lock along that nobody lets go.
  std::array<int, 2> started{};
  ASSERT_EQ(::pipe(started.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char go = 0;
    // Another user: may look, may not touch, and has a bounded share of the connections.
    if (::read(started[0], &go, 1) != 1 || ::setuid(65534) != 0) {
      ::_exit(9);
    }
    const bool looks = ask_server({"status"}).has_value();
    const auto flushed = ask_server({"flush", "/x"});
    const bool refused = !flushed && flushed.error().context() == "flush is for root only";
    std::vector<UniqueFd> many;
    many.reserve(2 * Server::kMostConnections);
    for (std::size_t i = 0; i < 2 * Server::kMostConnections; ++i) {
      many.push_back(connect());
    }
    ::_exit(looks && refused && ask_server({"status"}) ? 0 : 1);
  }
  start();
  EXPECT_EQ(::write(started[1], "g", 1), 1);
  ::close(started[0]);
  ::close(started[1]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace larder::control
