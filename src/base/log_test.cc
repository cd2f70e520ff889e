// The log must drop what is not asked for and keep what came last.
#include "base/log.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace larder {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::internal::CaptureStderr;
using ::testing::internal::GetCapturedStderr;

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override { CaptureStderr(); }

  void TearDown() override {
    static_cast<void>(GetCapturedStderr());
    set_log_level(LogLevel::kInfo);
  }
};

TEST_F(LogTest, LinesBelowTheLevelAreDropped) {
  const auto last_line_after = [](LogLevel level, LogLevel line) {
    log_error("before");
    set_log_level(level);
    log_line(line, "the line");
    return recent_log_lines().back();
  };
  EXPECT_THAT(last_line_after(LogLevel::kInfo, LogLevel::kDebug), EndsWith("before"));
  EXPECT_THAT(last_line_after(LogLevel::kInfo, LogLevel::kInfo), EndsWith(" info: the line"));
  EXPECT_THAT(last_line_after(LogLevel::kDebug, LogLevel::kDebug), EndsWith(" debug: the line"));
  EXPECT_THAT(last_line_after(LogLevel::kError, LogLevel::kWarning), EndsWith("before"));
  EXPECT_THAT(last_line_after(LogLevel::kError, LogLevel::kError), EndsWith(" error: the line"));
}

TEST_F(LogTest, TheLevelCountsAgainAfterTheLastWish) {
  set_log_level(LogLevel::kError);
  std::optional<VerboseLog> first(std::in_place);
  std::optional<VerboseLog> second(std::in_place);
  log_debug("for both");
  EXPECT_THAT(recent_log_lines().back(), EndsWith(" debug: for both"));
  first.reset();
  set_log_level(LogLevel::kWarning);
  log_debug("for one");
  EXPECT_THAT(recent_log_lines().back(), EndsWith(" debug: for one"));
  second.reset();
  EXPECT_EQ(log_level(), LogLevel::kWarning);
  log_info("for nobody");
  EXPECT_THAT(recent_log_lines().back(), EndsWith(" debug: for one"));
}

TEST_F(LogTest, LinesGoToStderrAndTheLastThousandAreKept) {
  for (int i = 0; i < 1500; ++i) {
    log_warning("line {}", i);
  }
  const std::vector<std::string> lines = recent_log_lines();
  ASSERT_EQ(lines.size(), 1000U);
  EXPECT_THAT(lines.front(), EndsWith(" warning: line 500"));
  EXPECT_THAT(lines.back(), EndsWith(" warning: line 1499"));
  EXPECT_THAT(GetCapturedStderr(), HasSubstr(" warning: line 0\n"));
  CaptureStderr();  // for TearDown()
}

TEST_F(LogTest, LevelsHaveNames) {
  LogLevel level = LogLevel::kInfo;
  EXPECT_TRUE(parse_log_level("debug", level));
  EXPECT_EQ(level, LogLevel::kDebug);
  EXPECT_FALSE(parse_log_level("loud", level));
  EXPECT_FALSE(parse_log_level("", level));
  EXPECT_EQ(level, LogLevel::kDebug);
}

}  // namespace
}  // namespace larder
