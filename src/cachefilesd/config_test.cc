// A configuration of the original's must be read as it is meant, and what is wrong in one must all
// be said at once, in sentences that lead to the line.
#include "cachefilesd/config.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "cachefilesd/limits.h"

namespace larder::cachefilesd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kName = "c.conf";

Config read(std::string_view text) {
  const auto config = parse_config(text, kName);
  EXPECT_TRUE(config.has_value()) << config.error().message();
  return config.value_or(Config());
}

// Of a file that is right but for `lines`.
std::string wrong(const std::string& lines) {
  const auto config = parse_config("dir /c\n" + lines, kName);
  return config ? "it is right" : config.error().message();
}

TEST(ConfigTest, TheOriginalsOwnFileIsRead) {
  const Config config = read(
      "###############\n#\n# Copyright\n\ndir /var/cache/fscache\ntag mycache\nbrun 10%\n"
      "bcull 7%\nbstop 3%\nfrun 10%\nfcull 7%\nfstop 3%\n\n# secctx system_u:object_r:x:s0\n");
  EXPECT_EQ(config.directory, "/var/cache/fscache");
  EXPECT_EQ(config.tag, "mycache");
  EXPECT_FALSE(config.security_context.has_value());
  EXPECT_EQ(config.limits, (Limits{10, 7, 3, 10, 7, 3}));
  EXPECT_TRUE(config.culls);
  EXPECT_TRUE(config.notes.empty());
}

TEST(ConfigTest, EveryCommandIsRead) {
  const Config config = read(
      "dir /c\nsecctx a:b:c\ndebug 0x7\nculltable 20\nnocull\nresume_thresholds 100 5\n"
      "size 20G\nruntime-dir /run/other\n");
  EXPECT_EQ(config.security_context, "a:b:c");
  EXPECT_EQ(config.debug_mask, 7U);
  EXPECT_FALSE(config.culls);
  EXPECT_EQ(config.resume, (ResumeThresholds{100, 5}));
  EXPECT_EQ(config.size_bytes, 20ULL << 30U);
  EXPECT_EQ(config.runtime_directory, "/run/other");
  EXPECT_THAT(config.notes, ElementsAre(HasSubstr("c.conf:4: culltable changes nothing")));
  EXPECT_EQ(read("dir /c\ndevice /dev/x\nsize 0\n").device, "/dev/x");
  EXPECT_EQ(read("dir /c\ndebug 010").debug_mask, 8U);
}

// As in the original, where these two ended the daemon.
TEST(ConfigTest, SpacesInFrontAreNothingAndSpacesBehindCount) {
  const Config config = read("  \t dir   /my cache \n\ttag a b\n   # tag c\n \t \nnocull \n");
  EXPECT_EQ(config.directory, "/my cache ");
  EXPECT_EQ(config.tag, "a b");
  EXPECT_FALSE(config.culls);
  EXPECT_THAT(wrong("brun 10% \n"), HasSubstr("c.conf:2: brun: \"10% \" is no percentage"));
}

TEST(ConfigTest, ThresholdsThatDoNotCount) {
  EXPECT_EQ(read("dir /c\n").resume, (ResumeThresholds{std::nullopt, 1}));
  EXPECT_EQ(read("dir /c\nresume_thresholds - 7\n").resume, (ResumeThresholds{std::nullopt, 7}));
  EXPECT_EQ(read("dir /c\nresume_thresholds 9\t-\n").resume, (ResumeThresholds{9, std::nullopt}));
  for (const char* const bad : {"0 5", "5", "5 0", "5 x", "5 5 5", "-1 5", "- 5k"}) {
    EXPECT_THAT(wrong(std::string("resume_thresholds ") + bad + "\n"),
                HasSubstr("c.conf:2: resume_thresholds: "))
        << bad;
  }
}

// What the kernel would refuse line by line.
TEST(ConfigTest, LimitsAreComparedInTheOrderInWhichTheyStand) {
  EXPECT_EQ(read("dir /c\nbstop 0%\nbcull 2%\nbrun 3%\n").limits, (Limits{7, 5, 1, 3, 2, 0}));
  EXPECT_THAT(wrong("bcull 7%\nbrun 10%\n"),
              HasSubstr("c.conf:2: bcull: bcull 7% must be below brun, which is 7% so far"));
  EXPECT_THAT(wrong("fstop 5%\n"), HasSubstr("fstop 5% must be below fcull"));
  EXPECT_THAT(wrong("frun 5%\n"), HasSubstr("frun 5% must be above fcull"));
  EXPECT_THAT(wrong("fcull 1%\n"), HasSubstr("fcull 1% must be above fstop"));
  EXPECT_THAT(wrong("brun 100%\n"), HasSubstr("is no percentage"));
  EXPECT_THAT(wrong("brun 10\n"), HasSubstr("is no percentage"));
}

TEST(ConfigTest, EveryErrorOfAFileIsTold) {
  const auto config = parse_config("tag a\ntag b\nbind\nbruno 10%\ndebug x\n", kName);
  ASSERT_FALSE(config.has_value());
  EXPECT_EQ(config.error().code(), Errc::kInvalid);
  EXPECT_EQ(config.error().message(),
            "c.conf:2: `tag` stands there a second time: take one of them out\n"
            "c.conf:3: `bind` is given by cachefilesd itself: take the line out\n"
            "c.conf:4: \"bruno\" is no command: see cachefilesd.conf(5), or take the line out\n"
            "c.conf:5: debug x: give a number, as 0 or 0x7\n"
            "c.conf: there is no line `dir PATH`: say which directory is the cache's");
}

TEST(ConfigTest, BadLinesAreRefused) {
  EXPECT_THAT(wrong("dir /d\n"), HasSubstr("c.conf:2: `dir` stands there a second time"));
  EXPECT_THAT(wrong("tag\n"), HasSubstr("c.conf:2: tag says nothing: write `tag NAME`"));
  EXPECT_THAT(wrong("nocull please\n"), HasSubstr("write `nocull`"));
  EXPECT_THAT(wrong("culltable 11\n"), HasSubstr("a number from 12 to 20"));
  EXPECT_THAT(wrong("size 20 G\n"), HasSubstr("c.conf:2: size 20 G: give a number of bytes"));
  EXPECT_THAT(wrong("device dev\n"), HasSubstr("give an absolute path"));
  EXPECT_THAT(wrong("device /d\nruntime-dir /r\n"), HasSubstr("both `runtime-dir` and `device`"));
  EXPECT_THAT(wrong(std::string("tag a\0b\n", 8)), HasSubstr("c.conf:2: the line has a NUL"));
  EXPECT_THAT(wrong("tag " + std::string(5000, 'a') + "\n"), HasSubstr("more than 4095 bytes"));
  EXPECT_THAT(parse_config("dir cache\n", kName).error().message(),
              HasSubstr("c.conf:1: dir cache: give an absolute path"));
}

TEST(ConfigTest, AFileThatCannotBeReadIsASentence) {
  EXPECT_EQ(read_config("/nowhere/c.conf").error().code(), Errc::kNotFound);
  EXPECT_FALSE(read_config(::testing::TempDir()).has_value());
  const std::string path = ::testing::TempDir() + "/config_test.conf";
  std::ofstream(path) << "dir /c\nnocull";
  EXPECT_FALSE(read_config(path).value().culls);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace larder::cachefilesd
