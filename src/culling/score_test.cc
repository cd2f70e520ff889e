#include "culling/score.h"

#include <cstdint>

#include <gtest/gtest.h>

#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr double kLeastSeconds = 60;

os::FileStat stat_of(std::int64_t modified, std::int64_t accessed) {
  os::FileStat stat;
  stat.modified = {modified, 0};
  stat.accessed = {accessed, 0};
  return stat;
}

TEST(ScoreTest, WhatWasNeverUsedAgainCountsFourTimes) {
  EXPECT_DOUBLE_EQ(score(stat_of(0, 1000), {1100, 0}, kLeastSeconds), 100);
  EXPECT_DOUBLE_EQ(score(stat_of(1000, 1000), {1100, 0}, kLeastSeconds), 400);
  EXPECT_DOUBLE_EQ(score(stat_of(1000, 1059), {1100, 0}, kLeastSeconds), 4 * 41);
  EXPECT_DOUBLE_EQ(score(stat_of(0, 2000), {1100, 0}, kLeastSeconds), 0);  // clock set back
}

TEST(ScoreTest, AStampIsDueAfterA64thOfTheOldestAge) {
  EXPECT_DOUBLE_EQ(stamp_after(0, kLeastSeconds), kLeastSeconds);
  EXPECT_DOUBLE_EQ(stamp_after(64'000, kLeastSeconds), 1000);
  EXPECT_DOUBLE_EQ(stamp_after(1e9, kLeastSeconds), 86'400);
}

}  // namespace
}  // namespace larder::culling
