// A cache channel as its holder sees it: what he may say and when, what the engine answers, what it
// says unasked, and what stays of him when he hangs up.
#include "engine/held_cache.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <ranges>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "cachefiles/cache_fixture_test.h"
#include "control/cache_limits.h"
#include "control/cache_protocol.h"
#include "control/cache_session.h"
#include "control/mailbox.h"
#include "control/server.h"
#include "engine/cache_binder.h"
#include "engine/cache_fixture_test.h"
#include "fscache/cache.h"
#include "handover/cache_keeper.h"
#include "testing/faulty_filesystem.h"
#include "testing/seed.h"

namespace larder::engine {
namespace {

using cachefiles::kMega;
using control::CacheLimits;
using control::ChannelPacket;
using fscache::CacheState;
using larder::testing::FileCall;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = ChannelPacket::Kind;

// The holder's end.
class Channel {
 public:
  Channel(CacheBinder& binder, handover::CacheKeeper& keeper, int process)
      : session_(open_cache_session(binder, keeper, {.pid = process, .uid = 0, .gid = 0},
                                    control::StatePusher(letters_, 1))) {}

  void send(std::string_view packet, UniqueFd descriptor = {}) {
    std::vector<UniqueFd> descriptors;
    if (descriptor.valid()) {
      descriptors.push_back(std::move(descriptor));
    }
    session_->execute(control::parse_cache_command(packet).value(), std::move(descriptors),
                      control::Responder(letters_, 1, control::Responder::Dialect::kChannel));
  }

  void hang_up() { session_.reset(); }

  [[nodiscard]] bool is_hung_up_on() const { return letters_->closed; }

  // What was sent, in its order.
  [[nodiscard]] std::deque<ChannelPacket>& packets() { return letters_->packets; }

  [[nodiscard]] bool is_answered() const {
    return std::ranges::any_of(letters_->packets, &Letters::is_reply);
  }

 private:
  struct Letters final : control::Mailbox {
    void put(control::Letter letter) override {
      if (letter.state) {
        packets.push_back({Kind::kState, 0, control::encode_cache_state(*letter.state)});
      }
      for (const std::string& packet : letter.packets) {
        packets.push_back(control::parse_channel_packet(packet).value());
        EXPECT_TRUE(is_reply(packets.back()));
      }
      closed = closed || letter.closes;
    }

    static bool is_reply(const ChannelPacket& packet) { return packet.kind != Kind::kState; }

    std::deque<ChannelPacket> packets;
    bool closed = false;
  };

  const std::shared_ptr<Letters> letters_ = std::make_shared<Letters>();
  std::unique_ptr<control::CacheSession> session_;
};

using ChannelPointer = std::unique_ptr<Channel>;

class HeldCacheTest : public CachesOnFake {
 protected:
  HeldCacheTest() { disk_.set_inodes(100 * kPercentInodes); }

  static constexpr std::uint64_t kPercentInodes = 1000;

  ChannelPointer open_channel(int process = 1) {
    return std::make_unique<Channel>(binder_, keeper_, process);
  }

  // The answer; state lines that came before it are dropped.
  ChannelPacket ask(Channel& channel, std::string_view packet, UniqueFd descriptor = {}) {
    channel.packets().clear();
    channel.send(packet, std::move(descriptor));
    EXPECT_TRUE(becomes([&] { return channel.is_answered(); })) << packet;
    while (!channel.packets().empty()) {
      ChannelPacket answer = std::move(channel.packets().front());
      channel.packets().pop_front();
      if (answer.kind != Kind::kState) {
        return answer;
      }
    }
    return {Kind::kError, ETIMEDOUT, "no answer"};
  }

  // The body of the answer, which must be one.
  std::string say(Channel& channel, std::string_view packet, UniqueFd descriptor = {}) {
    const ChannelPacket answer = ask(channel, packet, std::move(descriptor));
    EXPECT_EQ(answer.kind, Kind::kOk) << packet << ": " << answer.text;
    return answer.text;
  }

  void expect_refused(Channel& channel, std::string_view packet, int error_number,
                      std::string_view words) {
    const ChannelPacket answer = ask(channel, packet);
    EXPECT_EQ(answer.kind, Kind::kError) << packet;
    EXPECT_EQ(answer.error_number, error_number) << packet << ": " << answer.text;
    EXPECT_THAT(answer.text, HasSubstr(words)) << packet;
  }

  // One whose bind waits for the keeper.
  ChannelPointer begin_bind() {
    keeper_.silent = true;
    ChannelPointer channel = open_channel();
    EXPECT_EQ(say(*channel, "dir /disk"), "");
    channel->packets().clear();
    channel->send("bind");
    stepper_.run();
    return channel;
  }

  // All before bind.
  ChannelPointer prepare(const std::string& tag, const std::string& path,
                         const std::vector<std::string>& settings = {}, int process = 1) {
    ChannelPointer channel = open_channel(process);
    EXPECT_EQ(say(*channel, "dir " + path, keeper_.open(path)), "");
    EXPECT_EQ(say(*channel, "tag " + tag), "");
    for (const std::string& setting : settings) {
      EXPECT_EQ(say(*channel, setting), "");
    }
    return channel;
  }

  ChannelPointer hold(const std::string& tag, const std::string& path,
                      const std::vector<std::string>& settings = {}, int process = 1) {
    ChannelPointer channel = prepare(tag, path, settings, process);
    EXPECT_EQ(say(*channel, "bind"), "");
    return channel;
  }

  control::CacheState state(Channel& channel) {
    return control::parse_cache_state(say(channel, "state")).value();
  }

  CacheLimits blocks_of(const control::CacheState& state) {
    const std::uint64_t percent = kPercentBytes / state.block_bytes;
    return {state.brun / percent, state.bcull / percent, state.bstop / percent};
  }

  CacheLimits inodes_of(const control::CacheState& state) {
    return {state.frun / kPercentInodes, state.fcull / kPercentInodes,
            state.fstop / kPercentInodes};
  }

  // "file 1" and so on: those of one digit share a directory, the others do not.
  void keep_files(const std::string& tag, int count) {
    for (int number = 1; number <= count; ++number) {
      keep(tag, fmt::format("file {}", number));
    }
    stepper_.run();
  }
};

// ---- Before bind, and bind.

TEST_F(HeldCacheTest, WhatIsSaidBeforeBindHoldsFromThenOn) {
  const auto channel = prepare("farm", "/disk", {"size 64M", "brun 30%", "bcull 20%"}, 12);
  EXPECT_FALSE(is_listed("farm")) << "nothing is done before bind";
  EXPECT_TRUE(is_empty("/disk"));
  EXPECT_EQ(say(*channel, "bind"), "");
  EXPECT_TRUE(is_active("farm"));
  EXPECT_EQ(keeper_.asked, 0) << "the descriptor came with the path";
  EXPECT_EQ(status_of("farm").path, "/disk");
  EXPECT_THAT(status_of("farm").holder, HasSubstr("process 12"));
  EXPECT_EQ(state(*channel).size_bytes, 64 * kMega);
  EXPECT_EQ(blocks_of(state(*channel)), (CacheLimits{30, 20, 3}));
}

TEST_F(HeldCacheTest, WithoutATagThePathIsOne) {
  const auto channel = open_channel();
  EXPECT_EQ(say(*channel, "dir /disk"), "");
  EXPECT_EQ(say(*channel, "bind"), "");
  EXPECT_TRUE(is_active("/disk"));
  EXPECT_EQ(keeper_.asked, 1) << "no descriptor came with the path";
  channel->hang_up();
  stepper_.run();
  EXPECT_TRUE(is_gone("/disk"));
}

TEST_F(HeldCacheTest, BeforeBindThereIsNothingToCareFor) {
  const auto channel = open_channel();
  for (const char* command : {"cull Ix/@00/Dy", "inuse Ix/@00/Dy", "state", "oldest 3"}) {
    expect_refused(*channel, command, EIO, "before bind: there is no cache yet");
  }
  expect_refused(*channel, "bind", EINVAL, "name the directory first");
  expect_refused(*channel, "dir disk", EINVAL, "give an absolute path");
  expect_refused(*channel, "tag a/b", EINVAL, "give a name without a /");
  EXPECT_EQ(say(*channel, "dir /disk"), "");
  EXPECT_EQ(say(*channel, "tag farm"), "");
  expect_refused(*channel, "dir /other", EEXIST, "once is enough");
  expect_refused(*channel, "tag barn", EEXIST, "once is enough");
  expect_refused(*channel, "bind ondemand", EINVAL, "write bind alone");
  expect_refused(*channel, "secctx x", EINVAL, "leave the line out");
  EXPECT_EQ(say(*channel, "bind"), "");
  EXPECT_EQ(status_of("farm").path, "/disk") << "the first of each";
}

TEST_F(HeldCacheTest, AfterBindItsPlaceAndNameStay) {
  const auto channel = hold("farm", "/disk");
  expect_refused(*channel, "bind", EBUSY, "bound already");
  expect_refused(*channel, "dir /other", EEXIST, "hang up and begin anew");
  expect_refused(*channel, "tag barn", EEXIST, "hang up and begin anew");
  EXPECT_TRUE(is_active("farm"));
}

TEST_F(HeldCacheTest, WhileItIsBoundNothingElseBegins) {
  const auto channel = begin_bind();
  EXPECT_THAT(channel->packets(), IsEmpty());
  expect_refused(*channel, "bind", EBUSY, "bound already");
  expect_refused(*channel, "tag farm", EEXIST, "begin anew");
  expect_refused(*channel, "state", EIO, "before bind");
  keeper_.answer();
  stepper_.run();
  ASSERT_FALSE(channel->packets().empty());
  EXPECT_EQ(channel->packets().front().kind, Kind::kOk);
  EXPECT_TRUE(is_active("/disk"));
}

TEST_F(HeldCacheTest, ABindThatFailedMayBeTriedAgain) {
  spoil("/disk");
  const auto channel = prepare("farm", "/disk", {"size 64M"});
  expect_refused(*channel, "bind", EMEDIUMTYPE, "letter");
  expect_refused(*channel, "state", EIO, "before bind");
  clean("/disk");
  EXPECT_EQ(say(*channel, "bind"), "");
  EXPECT_EQ(state(*channel).size_bytes, 64 * kMega);
}

TEST_F(HeldCacheTest, WhatTheKeeperRefusesIsSaid) {
  const auto channel = begin_bind();
  keeper_.answer(fail_errno(EACCES, "no mount names /disk as its cache"));
  stepper_.run();
  ASSERT_EQ(channel->packets().size(), 1U);
  EXPECT_EQ(channel->packets().front().error_number, EACCES);
  EXPECT_THAT(channel->packets().front().text, HasSubstr("no mount names /disk"));
  keeper_.silent = false;
  EXPECT_EQ(say(*channel, "bind"), "");
}

// ---- Limits.

// What the kernel allows: each of the three between the others, at every step.
TEST_F(HeldCacheTest, LimitsAreTakenOrRefusedInAnyOrderBeforeAndAfterBind) {
  std::mt19937_64 random(testing::seed_of_test());
  const auto below = [&](std::uint64_t most) { return random() % most; };
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    CacheLimits blocks{10, 7, 3}, inodes{10, 7, 3};
    std::vector<std::pair<std::string, std::uint64_t CacheLimits::*>> commands{
        {"brun", &CacheLimits::run}, {"bcull", &CacheLimits::cull}, {"bstop", &CacheLimits::stop},
        {"frun", &CacheLimits::run}, {"fcull", &CacheLimits::cull}, {"fstop", &CacheLimits::stop}};
    std::ranges::shuffle(commands, random);
    const std::size_t bind_at = below(commands.size() + 1);
    const auto channel = prepare("farm", "/disk");
    for (std::size_t i = 0; i <= commands.size(); ++i) {
      if (i == bind_at) {
        EXPECT_EQ(say(*channel, "bind"), "");
      }
      if (i == commands.size()) {
        break;
      }
      const auto& [word, member] = commands[i];
      CacheLimits& three = word.front() == 'b' ? blocks : inodes;
      CacheLimits wanted = three;
      wanted.*member = below(25);
      const std::string command = fmt::format("{} {}%", word, wanted.*member);
      if (wanted.stop < wanted.cull && wanted.cull < wanted.run) {
        EXPECT_EQ(say(*channel, command), "");
        three = wanted;
      } else {
        expect_refused(*channel, command, EINVAL, "to raise all three begin with run");
      }
    }
    EXPECT_EQ(blocks_of(state(*channel)), blocks);
    EXPECT_EQ(inodes_of(state(*channel)), inodes);
    channel->hang_up();
    stepper_.run();
  }
}

TEST_F(HeldCacheTest, AllSixInTheDaemonsOrderAreTakenWhateverHeldBefore) {
  std::mt19937_64 random(testing::seed_of_test());
  const auto draw = [&] {
    CacheLimits limits;
    limits.stop = random() % 97;
    limits.cull = limits.stop + 1 + random() % (97 - limits.stop);
    limits.run = limits.cull + 1 + random() % (99 - limits.cull);
    return limits;
  };
  const auto channel = prepare("farm", "/disk");
  for (int round = 0; round < 50; ++round) {
    const CacheLimits blocks = draw();
    const CacheLimits inodes = draw();
    for (const control::CacheCommand& command : control::limit_commands(blocks, inodes)) {
      EXPECT_EQ(say(*channel, control::encode_cache_command(command)), "");
    }
    if (round == 20) {
      EXPECT_EQ(say(*channel, "bind"), "");
    }
    if (round >= 20) {
      ASSERT_EQ(blocks_of(state(*channel)), blocks);
      ASSERT_EQ(inodes_of(state(*channel)), inodes);
    }
  }
}

TEST_F(HeldCacheTest, ASizeThatMakesNoSenseLeavesTheOneBefore) {
  const auto channel = hold("farm", "/disk", {"size 64M"});
  expect_refused(*channel, "size x", EINVAL, "give a whole number");
  expect_refused(*channel, "size 1K", EINVAL, "at least 1 MiB");
  EXPECT_EQ(say(*channel, "brun 20%"), "") << "what was refused is not tried again with it";
  EXPECT_EQ(state(*channel).size_bytes, 64 * kMega);
  EXPECT_EQ(say(*channel, "size 0"), "");
  EXPECT_EQ(state(*channel).size_bytes, 20 * 1024 * kMega) << "the default";
}

TEST_F(HeldCacheTest, OldestIsANumberOfSeconds) {
  const auto channel = hold("farm", "/disk");
  EXPECT_EQ(say(*channel, "oldest 90.5"), "");
  for (const char* wrong : {"oldest", "oldest x", "oldest -1", "oldest 3s", "oldest nan",
                            "oldest inf", "oldest 1e999"}) {
    expect_refused(*channel, wrong, EINVAL, "give a number of seconds");
  }
  EXPECT_EQ(status_of("farm").cache.backend->oldest_seconds, 90.5);
}

TEST_F(HeldCacheTest, DebugLastsAsLongAsSomebodyWantsIt) {
  const LogLevel before = log_level();
  const auto first = open_channel();
  const auto second = open_channel();
  expect_refused(*first, "debug x", EINVAL, "give a number");
  EXPECT_EQ(say(*first, "debug 7"), "");
  EXPECT_EQ(say(*second, "debug 0x1"), "");
  EXPECT_EQ(log_level(), LogLevel::kDebug);
  EXPECT_EQ(say(*second, "debug 0"), "");
  EXPECT_EQ(log_level(), LogLevel::kDebug) << "the other wants it still";
  first->hang_up();
  stepper_.run();
  EXPECT_EQ(log_level(), before);
}

// ---- Objects.

TEST_F(HeldCacheTest, CullTakesOutWhatNobodyUses) {
  const auto channel = hold("farm", "/disk");
  keep_files("farm", 3);
  const std::vector<std::string> objects = objects_in("/disk");
  ASSERT_EQ(objects.size(), 3U);
  const std::uint64_t used = state(*channel).used_bytes;
  EXPECT_EQ(say(*channel, "inuse " + objects[0]), "0\n");
  const std::string outcome = say(*channel, "cull " + objects[0]);
  EXPECT_GE(std::stoull(outcome), kFileBytes);
  EXPECT_EQ(state(*channel).used_bytes, used - std::stoull(outcome));
  EXPECT_EQ(state(*channel).objects, 2U);
  for (const char* word : {"cull ", "inuse "}) {
    expect_refused(*channel, word + objects[0], ENOENT, "is gone: there is nothing left to cull");
    expect_refused(*channel, std::string(word) + "Inone/@00/Dx", EINVAL, "give the path of");
  }
  EXPECT_THAT(objects_in("/disk"), ElementsAre(objects[1], objects[2]));
}

TEST_F(HeldCacheTest, CullSparesWhatIsOpenAndSaysSo) {
  const auto channel = hold("farm", "/disk");
  const OpenFile file = open("farm", "file");
  ASSERT_TRUE(fill(file, "file"));
  const std::vector<std::string> objects = objects_in("/disk");
  ASSERT_EQ(objects.size(), 1U);
  for (const char* word : {"cull ", "inuse "}) {
    expect_refused(*channel, word + objects[0], EBUSY, "is in use: it can go when nobody has it");
  }
  EXPECT_EQ(objects_in("/disk"), objects);
}

// Whatever directories they lie in.
TEST_F(HeldCacheTest, OutcomesHaveTheOrderOfTheQuestion) {
  const auto channel = hold("farm", "/disk");
  keep_files("farm", 12);
  std::vector<std::string> objects = objects_in("/disk");
  const OpenFile file = open("farm", "file 3");
  std::ranges::reverse(objects);
  objects.insert(objects.begin() + 2, objects.front() + "gone");
  std::string lines;
  for (const std::string& object : objects) {
    lines += (lines.empty() ? "" : "\n") + object;
  }
  const auto used = control::parse_outcomes(say(*channel, "inuse " + lines)).value();
  const auto culled = control::parse_outcomes(say(*channel, "cull " + lines)).value();
  ASSERT_EQ(used.size(), objects.size());
  ASSERT_EQ(culled.size(), objects.size());
  const std::vector<std::string> left = objects_in("/disk");
  ASSERT_EQ(left.size(), 1U);
  for (std::size_t i = 0; i < objects.size(); ++i) {
    const int expected = i == 2 ? ENOENT : objects[i] == left[0] ? EBUSY : 0;
    EXPECT_EQ(used[i].error_number, expected) << i;
    EXPECT_EQ(culled[i].error_number, expected) << i;
    EXPECT_EQ(culled[i].bytes > 0, expected == 0) << i;
  }
}

// ---- Unasked.

// Each line behind the answer to what made it true.
TEST_F(HeldCacheTest, StateLinesComeInTheOrderOfTheChanges) {
  const auto channel = hold("farm", "/disk", {"size 64M"});
  keep_files("farm", 20);
  stepper_.run();
  EXPECT_THAT(channel->packets(), IsEmpty()) << "nothing is news";
  channel->packets().clear();
  const auto send = [&](const std::string& command) {
    channel->send(command);
    stepper_.run();
  };
  send("size 1M");
  for (const std::string& object : objects_in("/disk")) {
    send("cull " + object);
  }
  std::vector<std::string> story;
  for (const ChannelPacket& packet : channel->packets()) {
    if (packet.kind == Kind::kState) {
      story.emplace_back(control::parse_cache_state(packet.text).value().culling ? "short"
                                                                                 : "room");
    } else {
      ASSERT_EQ(packet.kind, Kind::kOk);
      story.emplace_back("ok");
    }
  }
  ASSERT_GT(story.size(), 20U);
  EXPECT_EQ(story[0], "ok");
  EXPECT_EQ(story[1], "short");
  EXPECT_EQ(std::ranges::count(story, "short"), 1) << "once is enough";
  EXPECT_EQ(std::ranges::count(story, "room"), 1);
  const auto room = std::ranges::find(story, "room");
  EXPECT_GT(std::distance(story.begin(), room), 10) << "a good part had to go first";
  EXPECT_EQ(*std::prev(room), "ok");
  EXPECT_GT(std::distance(room, story.end()), 5) << "not at the very end";
}

TEST_F(HeldCacheTest, WhatComesOutOfUseIsSaidWhileRoomIsShort) {
  const auto channel = hold("farm", "/disk", {"size 64M"});
  keep_files("farm", 20);
  OpenFile file = open("farm", "file 3");
  EXPECT_EQ(say(*channel, "size 1M"), "");
  stepper_.run();
  EXPECT_EQ(state(*channel).released_files, 0U);
  channel->packets().clear();
  file = {};
  stepper_.run();
  ASSERT_EQ(channel->packets().size(), 1U);
  const auto told = control::parse_cache_state(channel->packets().front().text).value();
  EXPECT_TRUE(told.culling);
  EXPECT_EQ(told.released_files, 1U);
  EXPECT_GE(told.released_blocks * 512, kFileBytes);
  EXPECT_EQ(state(*channel).released_files, 0U) << "said once";
}

TEST_F(HeldCacheTest, WhatIsBuriedIsSaid) {
  const auto channel = hold("farm", "/disk");
  const auto root = disk_.adopt(keeper_.open("/disk")).value();
  const auto graveyard = root->open_directory("graveyard").value();
  ASSERT_TRUE(graveyard->make_directory("x1x1x", 0700));
  channel->packets().clear();
  pass(std::chrono::minutes(10));
  ASSERT_EQ(channel->packets().size(), 1U) << "once, whatever passes";
  EXPECT_TRUE(control::parse_cache_state(channel->packets().front().text).value().graveyard);
  ASSERT_TRUE(graveyard->remove_directory("x1x1x"));
  EXPECT_FALSE(state(*channel).graveyard);
}

// ---- The end.

TEST_F(HeldCacheTest, HangingUpWithdrawsAndTheNextChannelReadmits) {
  const auto channel = hold("farm", "/disk", {"size 64M"}, 1);
  keep_files("farm", 20);
  OpenFile file = open("farm", "file 3");
  channel->hang_up();
  stepper_.run();
  EXPECT_EQ(state_of("farm"), CacheState::kWithdrawn);
  EXPECT_THAT(trouble_of("farm"), HasSubstr("(process 1) ended"));
  EXPECT_FALSE(is_gone("farm"));
  const auto next = hold("farm", "/disk", {"size 1M"}, 2);
  EXPECT_TRUE(is_active("farm"));
  EXPECT_FALSE(file.online->offline);
  EXPECT_EQ(state(*next).size_bytes, kMega);
  channel->packets().clear();
  next->packets().clear();
  file = {};
  stepper_.run();
  ASSERT_EQ(next->packets().size(), 1U) << "it is the second who is told what comes out of use";
  EXPECT_EQ(control::parse_cache_state(next->packets().front().text).value().released_files, 1U);
  EXPECT_THAT(channel->packets(), IsEmpty());
}

// At each call that the bind makes to the disk in turn.
TEST_F(HeldCacheTest, HangingUpInTheMiddleOfABindLeavesNothingOnline) {
  std::uint64_t calls = 0;
  bool bound = false;
  while (!bound && !HasFailure()) {
    const auto channel = prepare("farm", "/disk");
    before_call(++calls, [&] { channel->hang_up(); });
    channel->packets().clear();
    channel->send("bind");
    EXPECT_TRUE(becomes([&] { return channel->is_answered(); }));
    stepper_.run();
    SCOPED_TRACE(calls);
    bound = channel->packets().front().kind == Kind::kOk;
    EXPECT_TRUE(acted_) << "or it was over before";
    EXPECT_EQ(status_of("farm").holder, "");
    EXPECT_NE(state_of("farm"), CacheState::kActive);
    EXPECT_TRUE(is_gone("farm"));
  }
  EXPECT_GT(calls, 10U);
}

TEST_F(HeldCacheTest, HangingUpWhileTheKeeperOpensTheDirectory) {
  const auto channel = begin_bind();
  channel->hang_up();
  stepper_.run();
  keeper_.answer();
  stepper_.run();
  EXPECT_TRUE(is_gone("/disk"));
  EXPECT_NE(state_of("/disk"), CacheState::kActive);
  keeper_.silent = false;
  const auto next = open_channel();
  EXPECT_EQ(say(*next, "dir /disk"), "");
  EXPECT_EQ(say(*next, "bind"), "");
}

TEST_F(HeldCacheTest, WhoHangsUpInTheMiddleOfACullIsNotObeyedAnyLonger) {
  const auto channel = hold("farm", "/disk");
  keep_files("farm", 20);
  std::string lines;
  for (const std::string& object : objects_in("/disk") | std::views::reverse) {
    lines += (lines.empty() ? "" : "\n") + object;
  }
  before_call(1, [&] { channel->hang_up(); });
  channel->send("cull " + lines);
  stepper_.run();
  ASSERT_TRUE(acted_);
  EXPECT_EQ(objects_in("/disk").size(), 19U) << "the last directory holds one";
  EXPECT_TRUE(is_gone("farm"));
}

TEST_F(HeldCacheTest, DetachingHangsUpOnTheHolder) {
  const auto channel = hold("farm", "/disk");
  keep_files("farm", 1);
  const std::string object = objects_in("/disk").at(0);
  ASSERT_TRUE(binder_.detach("farm"));
  EXPECT_TRUE(channel->is_hung_up_on());
  EXPECT_EQ(state_of("farm"), CacheState::kWithdrawn);
  // What was under way already still finds its cache.
  EXPECT_EQ(say(*channel, "inuse " + object), "0\n");
  channel->hang_up();
  stepper_.run();
  EXPECT_TRUE(is_gone("farm"));
  EXPECT_EQ(objects_in("/disk").size(), 1U);
  const auto next = prepare("farm", "/disk");
  expect_refused(*next, "bind", EBUSY, "`larder cache attach farm`");
  EXPECT_FALSE(next->is_hung_up_on()) << "he may try again";
  ASSERT_TRUE(binder_.attach("farm"));
  EXPECT_EQ(say(*next, "bind"), "");
}

TEST_F(HeldCacheTest, DetachingInTheMiddleOfABindIsTheAnswerToIt) {
  const auto channel = prepare("farm", "/disk");
  before_call(5, [&] { ASSERT_TRUE(binder_.detach("farm")); });
  expect_refused(*channel, "bind", EBUSY, "`larder cache attach farm`");
  ASSERT_TRUE(acted_);
  EXPECT_TRUE(channel->is_hung_up_on());
  stepper_.run();
  EXPECT_TRUE(is_gone("farm"));
}

TEST_F(HeldCacheTest, WhatIsAskedOfABrokenDiskIsRefusedAsSuch) {
  const auto channel = hold("farm", "/disk");
  keep_files("farm", 1);
  const std::string object = objects_in("/disk").at(0);
  disk_.cut_power_after(0);
  EXPECT_TRUE(becomes([&] { return channel->is_hung_up_on(); }, std::chrono::hours(2)));
  EXPECT_EQ(state_of("farm"), CacheState::kError);
  for (const std::string& command :
       {"cull " + object, "inuse " + object, std::string("state"), std::string("size 64M")}) {
    expect_refused(*channel, command, EIO, "`larder status` says how the cache is");
  }
  EXPECT_EQ(say(*channel, "oldest 3"), "") << "it is in memory only";
}

// ---- Two channels.

TEST_F(HeldCacheTest, ASecondChannelMayDoNothingToWhatTheFirstHolds) {
  const auto first = hold("farm", "/disk", {"size 64M"}, 1);
  keep_files("farm", 2);
  const std::string object = objects_in("/disk").at(0);
  const auto second = prepare("farm", "/disk", {"size 32M", "brun 30%"}, 2);
  for (const std::string& command :
       {"cull " + object, "inuse " + object, std::string("state"), std::string("oldest 3")}) {
    expect_refused(*second, command, EIO, "before bind");
  }
  const auto began = stepper_.clock().now();
  expect_refused(*second, "bind", EBUSY, "held by another channel");
  EXPECT_LT(stepper_.clock().now() - began, seconds(4));
  EXPECT_EQ(state(*first).size_bytes, 64 * kMega);
  EXPECT_EQ(state(*first).objects, 2U);
  EXPECT_THAT(status_of("farm").holder, HasSubstr("process 1"));
  second->hang_up();
  stepper_.run();
  EXPECT_TRUE(is_active("farm")) << "it was not the second's to withdraw";
  EXPECT_FALSE(first->is_hung_up_on());
}

TEST_F(HeldCacheTest, TheSecondChannelBindsOnceTheFirstIsGone) {
  const auto first = hold("farm", "/disk", {"size 64M"}, 1);
  const auto second = prepare("farm", "/disk", {"size 32M"}, 2);
  expect_refused(*second, "bind", EBUSY, "held by another channel");
  second->packets().clear();
  second->send("bind");
  pass(seconds(1));
  EXPECT_FALSE(second->is_answered());
  first->hang_up();
  ASSERT_TRUE(becomes([&] { return second->is_answered(); }));
  EXPECT_EQ(second->packets().front().kind, Kind::kOk);
  EXPECT_EQ(state(*second).size_bytes, 32 * kMega) << "with what it said before";
  EXPECT_THAT(status_of("farm").holder, HasSubstr("process 2"));
}

TEST_F(HeldCacheTest, WhoHangsUpWhileHeWaitsDoesNotGetIt) {
  const auto first = hold("farm", "/disk", {}, 1);
  const auto second = prepare("farm", "/disk", {}, 2);
  second->send("bind");
  pass(seconds(1));
  second->hang_up();
  stepper_.run();
  first->hang_up();
  pass(seconds(20));
  EXPECT_EQ(status_of("farm").holder, "");
  EXPECT_TRUE(is_gone("farm"));
}

TEST_F(HeldCacheTest, TheSameDirectoryUnderAnotherTagIsRefused) {
  const auto first = hold("farm", "/disk");
  const auto second = prepare("barn", "/disk");
  expect_refused(*second, "bind", EBUSY,
                 "the cache in /disk is in use already, as farm: give that name");
  EXPECT_TRUE(is_active("farm"));
}

}  // namespace
}  // namespace larder::engine
