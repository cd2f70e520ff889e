// A word of fstab that is taken for something else would mount with the wrong rights, or not at
// all.
#include "cli/mount_options.h"

#include <cstdint>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::cli {
namespace {

TEST(MountOptionsTest, IgnoresWhatConcernsMount8AndSystemd) {
  const auto words = parse_option_words(
      "defaults,_netdev,noauto,nofail,user,x-systemd.automount,x-gvfs-hide,comment=a "
      "b,noatime,,rw");
  ASSERT_TRUE(words.has_value());
  EXPECT_EQ(words->options, handover::MountOptions());
}

TEST(MountOptionsTest, TakesCacheAndRuntimeDirectoryOut) {
  const auto words = parse_option_words("cache=/a b,runtime_dir=/run/x,noexec");
  ASSERT_TRUE(words.has_value());
  EXPECT_EQ(words->cache, "/a b");
  EXPECT_EQ(words->runtime_directory, "/run/x");
  EXPECT_TRUE(words->options.noexec);
  EXPECT_TRUE(words->options.adapter.empty());
}

TEST(MountOptionsTest, IsWritableUnlessSomebodySaysOtherwise) {
  EXPECT_FALSE(parse_option_words("nosuid")->options.read_only);
  EXPECT_TRUE(parse_option_words("ro,nosuid")->options.read_only);
  EXPECT_TRUE(parse_option_words("rw,ro")->options.read_only) << "the last word counts";
  EXPECT_FALSE(parse_option_words("ro,rw")->options.read_only);
}

TEST(MountOptionsTest, TakesTheSizeOfTheCacheOut) {
  const auto words = parse_option_words("cache=/x,cachesize=20G,noexec");
  ASSERT_TRUE(words.has_value());
  EXPECT_EQ(words->cache_size, std::uint64_t{20} << 30U);
  EXPECT_TRUE(words->options.adapter.empty());
  EXPECT_FALSE(parse_option_words("cache=/x")->cache_size.has_value());
}

TEST(MountOptionsTest, RefusesSizesThatAreNone) {
  for (const char* const size : {"", "0", "-1", "-5G", "five", "20GB", "1023K", "99999999T"}) {
    const auto words = parse_option_words(fmt::format("cachesize={}", size));
    ASSERT_FALSE(words.has_value()) << size;
    EXPECT_THAT(words.error().message(), testing::HasSubstr(fmt::format("cachesize=\"{}\"", size)));
  }
}

TEST(MountOptionsTest, RefusesRemounting) {
  EXPECT_THAT(parse_option_words("remount").error().message(),
              testing::HasSubstr("unmount and mount again"));
}

TEST(MountOptionsTest, LeavesUnknownNamesForTheAdapter) {
  const auto words = parse_option_words("vers=3,fancy");
  ASSERT_TRUE(words.has_value());
  EXPECT_THAT(words->options.adapter, testing::ElementsAre("vers=3", "fancy"));
}

}  // namespace
}  // namespace larder::cli
