// Settings must be taken and refused as by the kernel, and what an engine is told must be what it
// takes, in that order, whatever was set.
#include "device/settings.h"

#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "control/cache_protocol.h"
#include "device/command.h"

namespace larder::device {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

class SettingsTest : public ::testing::Test {
 protected:
  Errc set(std::string_view text) {
    const Result<> done = settings_.set(parse_write(text).value());
    return done ? kTaken : done.error().code();
  }

  std::vector<std::string> told() {
    std::vector<std::string> texts;
    for (const control::CacheCommand& command : settings_.commands(4096)) {
      texts.push_back(control::encode_cache_command(command));
    }
    return texts;
  }

  static constexpr Errc kTaken = Errc::kChanged;  // nothing here is refused with it
  Settings settings_;
};

TEST_F(SettingsTest, DirAndTagAreGivenOnce) {
  for (const char* const name : {"dir", "tag"}) {
    EXPECT_EQ(set(name), Errc::kInvalid) << name;
    EXPECT_EQ(set(std::string(name) + " a b"), kTaken) << name;
    EXPECT_EQ(set(std::string(name) + " a b"), Errc::kExists) << name;
  }
  EXPECT_EQ(settings_.directory(), "a b");
}

TEST_F(SettingsTest, EachLimitIsComparedWithTheOthersAsTheyAre) {
  EXPECT_EQ(set("brun 5%"), Errc::kInvalid);  // 7, 5 and 1 are the kernel's
  EXPECT_EQ(set("bcull 7%"), Errc::kInvalid);
  EXPECT_EQ(set("bstop 5%"), Errc::kInvalid);
  EXPECT_EQ(set("brun 100%"), Errc::kInvalid);
  EXPECT_EQ(set("bcull 1%"), Errc::kInvalid);
  EXPECT_EQ(settings_.blocks(), Limits());
  EXPECT_EQ(set("brun 20%"), kTaken);
  EXPECT_EQ(set("bcull 15%"), kTaken);
  EXPECT_EQ(set("bstop 14%"), kTaken);
  EXPECT_EQ(set("fstop 0%"), kTaken);
  EXPECT_EQ(settings_.blocks(), (Limits{20, 15, 14}));
  EXPECT_EQ(settings_.files(), (Limits{7, 5, 0}));
}

TEST_F(SettingsTest, TheEngineIsToldLimitsInAnOrderThatItTakes) {
  EXPECT_EQ(set("tag it"), kTaken);
  EXPECT_EQ(set("bstop 4%"), kTaken);
  EXPECT_THAT(told(),
              ElementsAre("tag it", "size 4096", "brun 99%", "bstop 0%", "bcull 5%", "brun 7%",
                          "bstop 4%", "frun 99%", "fstop 0%", "fcull 5%", "frun 7%", "fstop 1%"));
}

TEST_F(SettingsTest, WhoGivesNoTagHasTheKernels) {
  EXPECT_THAT(told(), Not(Contains("tag CacheFiles")));
  settings_.settle();
  EXPECT_THAT(told(), Contains("tag CacheFiles"));
  EXPECT_EQ(set("tag mine"), Errc::kExists);
}

}  // namespace
}  // namespace larder::device
