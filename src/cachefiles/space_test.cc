// A cache that is full must be culled, whatever the per cents say that are to be free.
#include "cachefiles/space.h"

#include <cstdint>

#include <gtest/gtest.h>

#include "base/error.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kMega = std::uint64_t{1} << 20U;
constexpr std::uint64_t kWhole = 100 * kMega;

class SpaceTest : public ::testing::Test {
 protected:
  // On a disk that is empty beside the cache.
  static Limits limits(unsigned run, unsigned cull, unsigned stop) {
    return {kWhole, {run, cull, stop}, {run, cull, stop}};
  }

  static void begin(Space& space, std::uint64_t used) {
    os::FilesystemSpace disk;
    disk.block_size = 4096;
    disk.blocks = disk.available_blocks = 1'000'000;
    disk.files = disk.free_files = 1'000'000;
    space.note_filesystem(disk);
    space.set_totals(used, 100, true);
  }
};

TEST_F(SpaceTest, CullingBeginsBelowTheOnePerCentAndEndsAboveTheOther) {
  Space space(limits(10, 7, 3));
  begin(space, 92 * kMega);
  EXPECT_FALSE(space.wants_culling());
  ASSERT_TRUE(space.reserve(2 * kMega));
  EXPECT_TRUE(space.wants_culling());
  EXPECT_EQ(space.to_free().bytes, 4 * kMega);
  space.adjust(-static_cast<std::int64_t>(4 * kMega), -4);
  EXPECT_EQ(space.to_free().bytes, 0U);
  EXPECT_FALSE(space.culling());
}

// The last part of the size is not given away, so that less than one per cent is never free.
TEST_F(SpaceTest, WhatIsRefusedIsReasonToCullHoweverFewPerCentAreToBeFree) {
  Space space(limits(2, 1, 0));
  begin(space, 98 * kMega);
  EXPECT_FALSE(space.wants_culling());
  EXPECT_EQ(space.reserve(kMega).error().code(), Errc::kNoSpace);
  EXPECT_TRUE(space.wants_culling());
  const std::uint64_t due = space.to_free().bytes;
  ASSERT_GT(due, 0U);
  EXPECT_LT(due, 2 * kMega);
  space.adjust(-static_cast<std::int64_t>(due), -1);
  EXPECT_EQ(space.to_free().bytes, 0U);
  EXPECT_TRUE(space.reserve(kMega));
  EXPECT_FALSE(space.wants_culling());
}

// A piece may be larger than all that is to be free.
TEST_F(SpaceTest, AndHoweverSmallTheCacheIsAgainstAPiece) {
  Space space({4 * kMega, {10, 7, 3}, {10, 7, 3}});
  begin(space, 3 * kMega + kMega / 2);
  EXPECT_FALSE(space.wants_culling());
  EXPECT_FALSE(space.reserve(kMega));
  space.adjust(-static_cast<std::int64_t>(space.to_free().bytes), -1);
  EXPECT_TRUE(space.reserve(kMega));
}

// What found no room was refused by another size.
TEST_F(SpaceTest, ANewSizeBeginsAnew) {
  Space space(limits(10, 7, 3));
  begin(space, 60 * kMega);
  ASSERT_FALSE(space.reserve(50 * kMega));
  space.set_limits({20 * kMega, {10, 7, 3}, {10, 7, 3}});
  EXPECT_EQ(space.to_free().bytes, 42 * kMega);
}

TEST_F(SpaceTest, WhatCannotFitAtAllIsNoReason) {
  Space space(limits(10, 7, 3));
  begin(space, 50 * kMega);
  EXPECT_FALSE(space.reserve(kWhole));
  EXPECT_FALSE(space.wants_culling());
}

// The ceiling moves with the next state that is written.
TEST_F(SpaceTest, TheCeilingIsNoReason) {
  Space space(limits(10, 7, 3));
  begin(space, 50 * kMega);
  space.set_ceiling(51 * kMega);
  EXPECT_FALSE(space.reserve(2 * kMega));
  EXPECT_FALSE(space.wants_culling());
  EXPECT_TRUE(space.reserve(kMega));
}

}  // namespace
}  // namespace larder::cachefiles
