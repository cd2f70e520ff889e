#include "culling/score.h"

#include <cstdint>

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
  return score(candidate, {1100, 0}, kLeastSeconds);
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

TEST(ScoreTest, AStampIsDueAfterA64thOfTheOldestAge) {
  EXPECT_DOUBLE_EQ(stamp_after(0, kLeastSeconds), kLeastSeconds);
  EXPECT_DOUBLE_EQ(stamp_after(64'000, kLeastSeconds), 1000);
  EXPECT_DOUBLE_EQ(stamp_after(1e9, kLeastSeconds), 86'400);
}

}  // namespace
}  // namespace larder::culling
