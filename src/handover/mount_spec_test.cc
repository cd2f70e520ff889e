// The spec is written by one program and read by another: what is lost or changed between them
// would mount something else than the person asked for.
#include "handover/mount_spec.h"

#include <initializer_list>
#include <string>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"

namespace larder::handover {
namespace {

Result<MountOptions> options_of(std::initializer_list<std::string_view> words) {
  MountOptions options;
  for (const std::string_view word : words) {
    TRY(apply_option(options, word));
  }
  return options;
}

TEST(MountSpecTest, ReadsBackWhatItWrote) {
  MountSpec spec{"nfs://host/a b", "/mnt/x\ny", "/var/cache/larder", {}};
  spec.options = options_of({"ro", "noexec", "suid", "acregmin=7", "nocto", "sync", "nconnect=4",
                             "rsize=65536", "soft", "timeo=50", "retrans=1", "passthrough=no",
                             "vers=3", "fancy"})
                     .value();
  spec.cache_size = 5U << 20U;
  const auto text = encode_spec(spec);
  ASSERT_TRUE(text.has_value());
  const auto again = decode_spec(*text);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(*again, spec);
  EXPECT_THAT(again->options.adapter, testing::ElementsAre("vers=3", "fancy"));
}

TEST(MountSpecTest, KeepsDefaultsWhereNothingWasSaid) {
  const auto again = decode_spec(encode_spec({"/srv", "/mnt", "", {}}).value());
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->options, MountOptions());
  EXPECT_FALSE(again->options.read_only);
  EXPECT_EQ(again->cache_size, 0U);
  EXPECT_TRUE(again->options.nosuid);
  EXPECT_TRUE(again->options.nodev);
  EXPECT_TRUE(again->options.passthrough);
  EXPECT_FALSE(again->options.local_lock);
}

TEST(MountSpecTest, TheLastWordCounts) {
  EXPECT_FALSE(options_of({"nosuid", "suid"})->nosuid);
  EXPECT_TRUE(options_of({"suid", "nosuid"})->nosuid);
  EXPECT_FALSE(options_of({"soft", "hard"})->soft);
  EXPECT_FALSE(options_of({"ro", "rw"})->read_only);
  EXPECT_TRUE(options_of({"rw", "ro"})->read_only);
  EXPECT_TRUE(options_of({"local_lock"})->local_lock);
  EXPECT_FALSE(options_of({"local_lock=all", "local_lock=none"})->local_lock);
}

TEST(MountSpecTest, NoacAndActimeoSetAllFourTimes) {
  const MountOptions noac = options_of({"noac"}).value();
  EXPECT_EQ(noac.acregmin + noac.acregmax + noac.acdirmin + noac.acdirmax, 0U);
  const MountOptions actimeo = options_of({"actimeo=9", "acdirmax=10"}).value();
  EXPECT_EQ(actimeo.acregmin, 9U);
  EXPECT_EQ(actimeo.acdirmin, 9U);
  EXPECT_EQ(actimeo.acdirmax, 10U);
}

TEST(MountSpecTest, RefusesValuesThatMakeNoSense) {
  for (const char* const word :
       {"nconnect=0", "nconnect=17", "nconnect", "rsize=12", "rsize=1k", "timeo=", "actimeo=-1",
        "acregmin=99999999999999999999", "passthrough=maybe", "profile=x", "passthrough",
        "local_lock=posix"}) {
    const auto options = options_of({word});
    ASSERT_FALSE(options.has_value()) << word;
    EXPECT_EQ(options.error().code(), Errc::kInvalid) << word;
  }
}

TEST(MountSpecTest, RefusesWhatIsNotThereYetWithASentence) {
  const auto options = options_of({"profile=tools"});
  ASSERT_FALSE(options.has_value());
  EXPECT_EQ(options.error().code(), Errc::kNotSupported);
  EXPECT_THAT(options.error().context(), testing::HasSubstr("profile=tools"));
}

TEST(MountSpecTest, RefusesASpecThatTheKeeperCouldNotStore) {
  const auto text = encode_spec({"/srv", "/" + std::string(4096, 'x'), "", {}});
  ASSERT_FALSE(text.has_value());
  EXPECT_EQ(text.error().code(), Errc::kInvalid);
}

TEST(MountSpecTest, RefusesTextsThatNobodyWrote) {
  EXPECT_FALSE(decode_spec("").has_value());
  EXPECT_FALSE(decode_spec("source=a\n").has_value());
  EXPECT_FALSE(decode_spec("source=a\nmountpoint=relative\n").has_value());
  EXPECT_FALSE(decode_spec("source=a\nmountpoint=/b\nwhat=c\n").has_value());
  EXPECT_FALSE(decode_spec("source=a\nmountpoint=/b\noption=rsize=1\n").has_value());
}

}  // namespace
}  // namespace larder::handover
