// The status is what a person sees first when something is wrong: it must come through whatever the
// engine's version knows, and must not carry anybody's control characters to a terminal.
#include "cli/status_text.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/result.h"

namespace larder::cli {
namespace {

using testing::HasSubstr;

TEST(StatusTextTest, PrintsTables) {
  const auto text = status_text(R"({"keeper":{"pid":1},"engine":{"pid":2,"uptime_s":3},
    "caches":[{"path":"/c","tag":"farm","holder":"process 9","culling":true,"used_bytes":1536,"limit_bytes":1073741824,"objects":7,
               "open_objects":2,"culled_last_hour":5,"oldest_s":86400,"state":"online","trouble":"the disk is full","damage":"some"}],
    "mounts":[{"mountpoint":"/m","source":"nfs://h/e","state":"served","hits":3,"misses":1,
               "hit_ratio":0.75,"bytes_from_cache":0,"bytes_from_server":42,"what":[]}]})");
  ASSERT_TRUE(text.has_value());
  EXPECT_THAT(*text, HasSubstr("keeper pid 1, engine pid 2, up 3 s\n"));
  EXPECT_THAT(
      *text,
      HasSubstr(
          "/c     farm  1.5 KiB  1.0 GiB  7        2       5         24 h    online, culling\n"
          "  cared for by process 9\n  ! the disk is full\n  ! some\n"));
  EXPECT_THAT(*text, HasSubstr("75.0 %"));
  EXPECT_THAT(*text, HasSubstr("42 B"));
}

TEST(StatusTextTest, ShowsATagOnlyWhereItSaysMore) {
  EXPECT_THAT(status_text(R"({"caches":[{"path":"/c","tag":"/c"}]})").value(),
              HasSubstr("/c     -    "));
}

TEST(StatusTextTest, TellsWhatIsWrongWithTheDaemons) {
  EXPECT_THAT(status_text(R"({"keeper":{"pid":1,"trouble":"it keeps dying"}})").value(),
              HasSubstr("up - s\n  ! it keeps dying\n"));
}

TEST(StatusTextTest, TellsAgesInWhatPeopleCountThemBy) {
  const auto age = [](const char* seconds) {
    return status_text(fmt::format(R"({{"caches":[{{"oldest_s":{}}}]}})", seconds)).value();
  };
  EXPECT_THAT(age("0"), HasSubstr("-  "));
  EXPECT_THAT(age("90"), HasSubstr("2 min"));
  EXPECT_THAT(age("36000"), HasSubstr("10 h"));
  EXPECT_THAT(age("864000"), HasSubstr("10 d"));
}

TEST(StatusTextTest, ToleratesWhatIsMissingOrOfAnotherKind) {
  for (const char* const json :
       {"{}", R"({"mounts":[{}]})", R"({"mounts":[3],"caches":{}})", R"({"engine":5})",
        R"({"caches":[{"path":null,"used_bytes":"many","objects":[1]}]})"}) {
    EXPECT_TRUE(status_text(json).has_value()) << json;
  }
  EXPECT_THAT(status_text("{}").value(), HasSubstr("no mounts"));
}

TEST(StatusTextTest, RefusesWhatIsNotJson) {
  EXPECT_FALSE(status_text("").has_value());
  EXPECT_FALSE(status_text("[1]").has_value());
  EXPECT_FALSE(status_text("{").has_value());
}

TEST(StatusTextTest, PrintsNoControlCharacters) {
  const auto text = status_text(R"({"mounts":[{"mountpoint":"/a\u001b[2Jb\n"}]})");
  ASSERT_TRUE(text.has_value());
  EXPECT_THAT(*text, HasSubstr("/a?[2Jb?"));
}

}  // namespace
}  // namespace larder::cli
