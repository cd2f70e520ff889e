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

  static void begin(Space& space, std::uint64_t used, std::uint64_t objects = 100) {
    look(space);
    space.set_totals(used, objects, true);
  }

  // The disk is asked.
  static void look(Space& space) {
    os::FilesystemSpace disk;
    disk.block_size = 4096;
    disk.blocks = disk.available_blocks = 100'000'000;
    disk.files = disk.free_files = 1'000'000;
    space.note_filesystem(disk);
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

// A quota, or a filesystem that is full of something else than blocks.
TEST_F(SpaceTest, WhatTheDiskItselfRefusesIsReasonToCullWhateverItSaysOfItsRoom) {
  Space space(limits(10, 7, 3));
  begin(space, 50 * kMega);
  space.note_disk_full();
  look(space);
  EXPECT_TRUE(space.wants_culling());
  const std::uint64_t due = space.to_free().bytes;
  EXPECT_GE(due, kMega);
  EXPECT_LE(due, 3 * kMega);
  EXPECT_TRUE(space.culling());
  space.adjust(-static_cast<std::int64_t>(due), -1);
  EXPECT_EQ(space.to_free().bytes, 0U);
  EXPECT_FALSE(space.culling());
  space.adjust(static_cast<std::int64_t>(due), 1);
  EXPECT_EQ(space.to_free().bytes, 0U) << "once";
  space.note_disk_full();
  look(space);
  EXPECT_GE(space.to_free().bytes, kMega) << "and again";
}

// Many are refused before one can be culled.
TEST_F(SpaceTest, RefusedAgainMeanwhileNoMoreIsCulled) {
  Space space(limits(10, 7, 3));
  begin(space, 50 * kMega);
  space.note_disk_full();
  const std::uint64_t due = space.to_free().bytes;
  ASSERT_GT(due, 0U);
  space.adjust(-static_cast<std::int64_t>(due / 2), -1);
  space.note_disk_full();
  EXPECT_EQ(space.to_free().bytes, due - due / 2);
}

TEST_F(SpaceTest, ADiskThatTakesAsMuchAgainIsNoReason) {
  Space space(limits(10, 7, 3));
  begin(space, 50 * kMega);
  space.note_disk_full();
  look(space);
  const std::uint64_t due = space.to_free().bytes;
  space.note_written(due / 2);
  EXPECT_GT(space.to_free().bytes, 0U) << "what is small may find room, and nothing else";
  space.note_written(due);
  EXPECT_EQ(space.to_free().bytes, 0U);
  EXPECT_FALSE(space.culling());
}

TEST_F(SpaceTest, OneRefusalCostsAGiantCacheLittle) {
  Space space({100'000 * kMega, {10, 7, 3}, {10, 7, 3}});
  begin(space, 80'000 * kMega);
  space.note_disk_full();
  look(space);
  EXPECT_GT(space.to_free().bytes, 0U);
  EXPECT_LE(space.to_free().bytes, 1024 * kMega);
}

TEST_F(SpaceTest, WhereThereIsNothingThatCouldGoNothingIsAsked) {
  Space space(limits(10, 7, 3));
  begin(space, kMega, 0);
  space.note_disk_full();
  look(space);
  EXPECT_FALSE(space.wants_culling());
}

}  // namespace
}  // namespace larder::cachefiles
