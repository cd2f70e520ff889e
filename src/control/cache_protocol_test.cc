#include "control/cache_protocol.h"

#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::control {
namespace {

int error_of(std::string_view packet) {
  const Result<CacheCommand> command = parse_cache_command(packet);
  return command ? 0 : command.error().error_number();
}

TEST(CacheCommandTest, TakesTheRestOfTheLineAsItStands) {
  EXPECT_EQ(parse_cache_command("dir /a b ").value(), (CacheCommand{CacheVerb::kDir, "/a b ", {}}));
  EXPECT_EQ(parse_cache_command("tag   x").value(), (CacheCommand{CacheVerb::kTag, "x", {}}));
  EXPECT_EQ(parse_cache_command("bind").value(), (CacheCommand{CacheVerb::kBind, "", {}}));
  EXPECT_EQ(parse_cache_command("bind ").value(), (CacheCommand{CacheVerb::kBind, "", {}}));
  EXPECT_EQ(parse_cache_command("brun 7%\n").value(), (CacheCommand{CacheVerb::kBrun, "7%", {}}));
  EXPECT_EQ(parse_cache_command("cull I/@00/a\nb\n\nc\n").value(),
            (CacheCommand{CacheVerb::kCull, "I/@00/a", {"b", "c"}}));
}

TEST(CacheCommandTest, RefusesWhatTheKernelRefusesWithItsErrnos) {
  EXPECT_EQ(error_of(""), EOPNOTSUPP);
  EXPECT_EQ(error_of("nonsense"), EOPNOTSUPP);
  EXPECT_EQ(error_of(" bind"), EOPNOTSUPP);
  EXPECT_EQ(error_of("BIND"), EOPNOTSUPP);
  EXPECT_EQ(error_of("bin"), EOPNOTSUPP);
  EXPECT_EQ(error_of("\nbind"), EINVAL);
  EXPECT_EQ(error_of(std::string_view("tag a\0b", 7)), EINVAL);
  EXPECT_EQ(error_of("tag " + std::string(kMostChannelPacketBytes, 'x')), EOPNOTSUPP);
  EXPECT_EQ(error_of("tag " + std::string(kMostChannelPacketBytes - 4, 'x')), 0);
}

TEST(CacheCommandTest, SurvivesItsOwnEncoding) {
  for (const CacheCommand& command :
       {CacheCommand{CacheVerb::kState, "", {}}, CacheCommand{CacheVerb::kDir, "/var/a  b", {}},
        CacheCommand{CacheVerb::kInuse, "I/@01/x", {"y", "I/@02/z"}}}) {
    EXPECT_EQ(parse_cache_command(encode_cache_command(command)).value(), command);
  }
}

TEST(CacheCommandTest, ReadsPercentages) {
  EXPECT_EQ(parse_percent("0%").value(), 0U);
  EXPECT_EQ(parse_percent("99%").value(), 99U);
  for (const char* wrong : {"", "%", "10", "x%", "100%", "10% ", " 10%", "-1%", "1.5%", "10%%"}) {
    EXPECT_EQ(parse_percent(wrong).error().error_number(), EINVAL) << wrong;
  }
}

TEST(ObjectPathTest, ALineWithoutADirectoryIsInTheOneBefore) {
  const CacheCommand command{CacheVerb::kCull, "Ia/@00/x", {"y", "Ib/@ff/z", "w"}};
  const std::vector<ObjectPath> objects = objects_of(command).value();
  EXPECT_EQ(objects, (std::vector<ObjectPath>{
                         {"Ia/@00", "x"}, {"Ia/@00", "y"}, {"Ib/@ff", "z"}, {"Ib/@ff", "w"}}));
}

TEST(ObjectPathTest, LeadsNowhereElse) {
  for (const char* wrong :
       {"", "x", "/Ia/@00/x", "Ia/../x", "Ia/@00/", "Ia//x", "Ia/@00/..", "./@00/x", "Ia/@00/."}) {
    EXPECT_EQ(objects_of({CacheVerb::kCull, wrong, {}}).error().error_number(), EINVAL) << wrong;
  }
  const std::vector<std::string> many(kMostObjectsAtOnce, "x");
  EXPECT_EQ(objects_of({CacheVerb::kCull, "Ia/@00/x", many}).error().error_number(), EINVAL);
}

TEST(ObjectPathTest, ManyGoInPacketsThatFit) {
  std::vector<ObjectPath> objects;
  for (std::size_t i = 0; i < 1000; ++i) {
    objects.push_back({"I" + std::string(i % 200 < 100 ? 200 : 100, 'v') + "/@00",
                       std::to_string(i) + std::string(150, 'n')});
  }
  std::vector<ObjectPath> arrived;
  while (arrived.size() < objects.size()) {
    const ObjectsCommand next =
        objects_command(CacheVerb::kCull, std::span(objects).subspan(arrived.size()));
    const std::string packet = encode_cache_command(next.command);
    ASSERT_LE(packet.size(), kMostChannelPacketBytes);
    const auto some = objects_of(parse_cache_command(packet).value()).value();
    ASSERT_EQ(some.size(), next.objects);
    arrived.insert(arrived.end(), some.begin(), some.end());
  }
  EXPECT_EQ(arrived, objects);
}

TEST(ObjectOutcomeTest, SurvivesItsEncoding) {
  const std::vector<ObjectOutcome> outcomes{{0, 4096}, {EBUSY, 0}, {ENOENT, 0}, {0, 0}};
  EXPECT_EQ(encode_outcomes(outcomes), "4096\nEBUSY\nENOENT\n0\n");
  EXPECT_EQ(parse_outcomes(encode_outcomes(outcomes)).value(), outcomes);
  EXPECT_EQ(parse_outcomes("12\nnonsense\n").error().code(), Errc::kCorrupt);
}

CacheState some_state() {
  CacheState state;
  state.culling = true;
  state.frun = 0x4ccc;
  state.bstop = 0x938a;
  state.released_files = 5;
  state.released_blocks = 0x100;
  state.block_bytes = 4096;
  state.used_bytes = std::uint64_t{1} << 40U;
  state.excess_bytes = 77;
  state.graveyard = true;
  return state;
}

TEST(CacheStateTest, SurvivesItsEncoding) {
  EXPECT_EQ(parse_cache_state(encode_cache_state(some_state())).value(), some_state());
}

TEST(CacheStateTest, ReadsTheKernelsLine) {
  const CacheState state =
      parse_cache_state(
          "cull=0 frun=4ccc fcull=35c2 fstop=170a brun=24e28 bcull=1ba9e bstop=938a "
          "freleased=5 breleased=100")
          .value();
  EXPECT_FALSE(state.culling);
  EXPECT_EQ(state.frun, 0x4cccU);
  EXPECT_EQ(state.brun, 0x24e28U);
  EXPECT_EQ(state.released_files, 5U);
  EXPECT_EQ(state.released_blocks, 0x100U);
  EXPECT_EQ(state.block_bytes, 0U);
}

TEST(CacheStateTest, LeavesOutWhatItDoesNotKnow) {
  const std::string line = encode_cache_state(some_state());
  EXPECT_EQ(parse_cache_state(line + " future=1 odd").value(), some_state());
}

TEST(CacheStateTest, RefusesWhatIsNoState) {
  for (const char* wrong : {"", "cull=1", "cull=x frun=1"}) {
    EXPECT_EQ(parse_cache_state(wrong).error().code(), Errc::kCorrupt) << wrong;
  }
  std::string line = encode_cache_state(some_state());
  line.replace(line.find("fcull="), 6, "funny=");
  EXPECT_EQ(parse_cache_state(line).error().code(), Errc::kCorrupt);
}

TEST(ChannelPacketTest, SurvivesItsEncoding) {
  for (const ChannelPacket& packet :
       {ChannelPacket{ChannelPacket::Kind::kOk, 0, "a\nb\n"},
        ChannelPacket{ChannelPacket::Kind::kError, EBUSY, "in use: wait"},
        ChannelPacket{ChannelPacket::Kind::kState, 0, "cull=0"}}) {
    const ChannelPacket back = parse_channel_packet(encode_channel_packet(packet)).value();
    EXPECT_EQ(back.kind, packet.kind);
    EXPECT_EQ(back.error_number, packet.error_number);
    EXPECT_EQ(back.text, packet.text);
  }
}

TEST(ChannelPacketTest, ASentenceIsOneLine) {
  const std::string packet =
      encode_channel_packet(channel_reply(fail(Errc::kBusy, "first\nsecond")));
  EXPECT_EQ(packet, "error EBUSY first second\n");
}

TEST(ChannelPacketTest, RefusesWhatTheEngineNeverSends) {
  for (const char* wrong : {"", "ok", "error EBUSY x", "error NOTHING x\n", "state", "more\nx"}) {
    EXPECT_EQ(parse_channel_packet(wrong).error().code(), Errc::kCorrupt) << wrong;
  }
}

}  // namespace
}  // namespace larder::control
