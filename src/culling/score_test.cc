#include "culling/score.h"

#include <cstdint>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "culling/candidate.h"

namespace larder::culling {
namespace {

constexpr double kLeastSeconds = 60;

double score_of(std::int64_t modified, std::int64_t accessed, std::uint64_t bytes = 4096) {
  Candidate candidate;
  candidate.stat.modified = {modified, 0};
  candidate.stat.accessed = {accessed, 0};
  candidate.bytes = bytes;
  const double weight = is_used_again(candidate.stat, kLeastSeconds) ? kUsedAgain : kNeverUsedAgain;
  return score(candidate, {1100, 0}, weight);
}

TEST(ScoreTest, WhatWasNeverUsedAgainCountsFourTimes) {
  EXPECT_DOUBLE_EQ(score_of(0, 1000), 100);
  EXPECT_DOUBLE_EQ(score_of(1000, 1000), 400);
  EXPECT_DOUBLE_EQ(score_of(1000, 1059), 4 * 41);
  EXPECT_DOUBLE_EQ(score_of(0, 2000), 0);  // clock set back
}

// A miss of a large object costs little more than one of a small one, for the room of many.
TEST(ScoreTest, SizeCountsALittle) {
  EXPECT_DOUBLE_EQ(score_of(0, 1000, 0), 100);
  EXPECT_DOUBLE_EQ(score_of(0, 1000, 512), 100);
  EXPECT_DOUBLE_EQ(score_of(0, 1000, std::uint64_t{4096} << 16U), 200);
}

std::vector<double> evenly(double youngest, double oldest) {
  std::vector<double> seconds;
  seconds.reserve(100);
  for (int i = 0; i < 100; ++i) {
    seconds.push_back(youngest + (oldest - youngest) * i / 99);
  }
  return seconds;
}

// What was used again is worth more as long as it goes on being used.
TEST(WeightTest, FallsWhenNothingThatWasUsedAgainIsUsedAnyMore) {
  EXPECT_EQ(weight_of_never_used_again(evenly(0, 1000)), kNeverUsedAgain);
  EXPECT_EQ(weight_of_never_used_again(evenly(300, 1000)), kUsedAgain);
  const double between = weight_of_never_used_again(evenly(80, 1000)).value();
  EXPECT_GT(between, kUsedAgain);
  EXPECT_LT(between, kNeverUsedAgain);
}

TEST(WeightTest, AFewThatAreUsedTellNothingNorDoOldOnes) {
  std::vector<double> seconds = evenly(300, 1000);
  seconds.insert(seconds.end(), {0, 0, 1e9, 1e9});
  EXPECT_EQ(weight_of_never_used_again(seconds), kUsedAgain);
  EXPECT_EQ(weight_of_never_used_again({0, 1000}), std::nullopt);
}

// All at once, or clocks that were set back.
TEST(WeightTest, HasItsBounds) {
  EXPECT_EQ(weight_of_never_used_again(evenly(0, 0)), kUsedAgain);
  EXPECT_EQ(weight_of_never_used_again(evenly(-50, -10)), kUsedAgain);
}

TEST(ScoreTest, AStampIsDueAfterA64thOfTheOldestAge) {
  EXPECT_DOUBLE_EQ(stamp_after(0, kLeastSeconds), kLeastSeconds);
  EXPECT_DOUBLE_EQ(stamp_after(64'000, kLeastSeconds), 1000);
  EXPECT_DOUBLE_EQ(stamp_after(1e9, kLeastSeconds), 86'400);
}

}  // namespace
}  // namespace larder::culling
