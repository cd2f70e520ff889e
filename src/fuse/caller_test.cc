#include "fuse/caller.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "testing/manual_clock.h"

namespace larder::fuse {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string stat_of(const std::string& name, std::uint64_t start) {
  return fmt::format("42 ({}) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {} 1000 20\n", name,
                     start);
}

std::string status_of(std::uint32_t uid, std::uint32_t gid, const std::string& groups) {
  return fmt::format(
      "Name:\tcat\nUmask:\t0022\nState:\tR (running)\nUid:\t1\t2\t3\t{}\nGid:\t4\t5\t6\t{}\n"
      "FDSize:\t64\nGroups:\t{} \nNStgid:\t42\n",
      uid, gid, groups);
}

TEST(ParseStartTime, CountsBehindTheLastParenthesis) {
  EXPECT_EQ(parse_start_time(stat_of("cat", 777)), 777U);
  EXPECT_EQ(parse_start_time(stat_of("a b) R 1 2 (c", 778)), 778U);
  EXPECT_EQ(parse_start_time(stat_of(")))", 779)), 779U);
}

TEST(ParseStartTime, RefusesWhatMakesNoSense) {
  EXPECT_EQ(parse_start_time(""), std::nullopt);
  EXPECT_EQ(parse_start_time("42 cat S 1"), std::nullopt);
  EXPECT_EQ(parse_start_time("42 (cat)"), std::nullopt);
  EXPECT_EQ(parse_start_time("42 (cat) S 1 42"), std::nullopt);
  EXPECT_EQ(parse_start_time("42 (c) S 1 42 42 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 x"), std::nullopt);
  EXPECT_EQ(parse_start_time("42 (c) S 1 42 42 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 "), std::nullopt);
}

TEST(ParseProcessStatus, TakesTheFilesystemIds) {
  const auto status = parse_process_status(status_of(1000, 100, "4 24 100"));
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->fs_uid, 1000U);
  EXPECT_EQ(status->fs_gid, 100U);
  EXPECT_THAT(status->groups, ElementsAre(4, 24, 100));
}

TEST(ParseProcessStatus, NoGroupsAndManyGroups) {
  const auto none = parse_process_status(status_of(0, 0, ""));
  ASSERT_TRUE(none.has_value());
  EXPECT_THAT(none->groups, IsEmpty());
  std::string groups;
  for (std::uint32_t i = 0; i < 65'536; ++i) {
    groups += fmt::format("{} ", 4'294'900'000U + i % 60'000);
  }
  const auto many = parse_process_status(status_of(0, 0, groups));
  ASSERT_TRUE(many.has_value());
  EXPECT_EQ(many->groups.size(), 65'536U);
}

TEST(ParseProcessStatus, RefusesWhatMakesNoSense) {
  EXPECT_EQ(parse_process_status(""), std::nullopt);
  EXPECT_EQ(parse_process_status("Name:\tx\nUid:\t1\t2\t3\nGid:\t1\t1\t1\t1\nGroups:\t\n"),
            std::nullopt);
  EXPECT_EQ(parse_process_status(status_of(1, 1, "4 five")), std::nullopt);
  EXPECT_EQ(parse_process_status(status_of(1, 1, "4 99999999999")), std::nullopt);
  EXPECT_EQ(parse_process_status("Name:\tx\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n"), std::nullopt);
}

class CallerTableTest : public ::testing::Test {
 protected:
  void put(std::uint32_t pid, std::uint64_t start, const std::string& status) {
    proc_[{pid, "stat"}] = stat_of("cat", start);
    proc_[{pid, "status"}] = status;
  }

  larder::testing::ManualClock clock_;
  std::map<std::pair<std::uint32_t, std::string>, std::string> proc_;
  int status_reads_ = 0;
  CallerTable table_{clock_,
                     [this](std::uint32_t pid, const char* file) -> std::optional<std::string> {
                       status_reads_ += std::string(file) == "status" ? 1 : 0;
                       const auto found = proc_.find({pid, file});
                       return found == proc_.end() ? std::nullopt : std::optional(found->second);
                     }};
};

TEST_F(CallerTableTest, RemembersGroupsForASecond) {
  put(42, 1, status_of(1000, 100, "4 24"));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, ElementsAre(4, 24));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, ElementsAre(4, 24));
  EXPECT_EQ(status_reads_, 1);
  clock_.advance(std::chrono::milliseconds(1001));
  put(42, 1, status_of(1000, 100, "5"));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, ElementsAre(5));
}

TEST_F(CallerTableTest, ANewProcessOfThePidIsAnotherOne) {
  put(42, 1, status_of(1000, 100, "4 24"));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, ElementsAre(4, 24));
  put(42, 2, status_of(1000, 100, ""));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, IsEmpty());
}

TEST_F(CallerTableTest, BelievesGroupsOnlyOfTheSameUser) {
  put(42, 1, status_of(0, 0, "4 24"));
  const auto credential = table_.credential(1000, 100, 42);
  EXPECT_EQ(credential->uid, 1000U);
  EXPECT_EQ(credential->gid, 100U);
  EXPECT_THAT(credential->groups, IsEmpty());
}

TEST_F(CallerTableTest, AUserWhoChangedMeanwhileDoesNotGetTheFormerOnesGroups) {
  put(42, 1, status_of(1000, 100, "4 24"));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, ElementsAre(4, 24));
  put(42, 1, status_of(1001, 100, "7"));
  EXPECT_THAT(table_.credential(1001, 100, 42)->groups, ElementsAre(7));
  EXPECT_THAT(table_.credential(1000, 100, 42)->groups, IsEmpty());
}

TEST_F(CallerTableTest, WhoCannotBeReadHasNoGroups) {
  put(0, 1, status_of(1000, 100, "4"));
  EXPECT_THAT(table_.credential(1000, 100, 0)->groups, IsEmpty()) << "of another namespace";
  EXPECT_EQ(status_reads_, 0);
  EXPECT_THAT(table_.credential(1000, 100, 99)->groups, IsEmpty()) << "gone";
  proc_[{43, "stat"}] = stat_of("cat", 1);
  EXPECT_THAT(table_.credential(1000, 100, 43)->groups, IsEmpty()) << "gone between";
}

}  // namespace
}  // namespace larder::fuse
