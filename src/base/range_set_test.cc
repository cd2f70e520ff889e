#include "base/range_set.h"

#include <cstdint>
#include <optional>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/byte_range.h"

namespace larder {
namespace {

// Without merging, a sequentially filled file would keep one range a write.
TEST(RangeSetTest, MergesRangesThatTouch) {
  RangeSet set;
  set.add({0, 10});
  set.add({20, 10});
  EXPECT_EQ(set.size(), 2U);
  set.add({10, 10});
  EXPECT_EQ(set.ranges(), std::vector({ByteRange{0, 30}}));
}

TEST(RangeSetTest, RemovingTheMiddleLeavesBothEnds) {
  RangeSet set;
  set.add({0, 100});
  set.remove({40, 20});
  EXPECT_EQ(set.ranges(), std::vector({ByteRange{0, 40}, ByteRange{60, 40}}));
  EXPECT_EQ(set.missing_in({30, 40}), std::vector({ByteRange{40, 20}}));
}

TEST(RangeSetTest, FirstAtOrAfterIsCutToBeginThere) {
  RangeSet set;
  set.add({10, 10});
  EXPECT_EQ(set.first_at_or_after(15), (ByteRange{15, 5}));
  EXPECT_EQ(set.first_at_or_after(0), (ByteRange{10, 10}));
  EXPECT_EQ(set.first_at_or_after(20), std::nullopt);
}

// The set must agree with the plainest model there is, whatever is added and removed.
TEST(RangeSetTest, AgreesWithABitmapUnderRandomOperations) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  constexpr std::uint64_t kSize = 200;
  for (int round = 0; round < 50; ++round) {
    RangeSet set;
    std::vector<bool> model(kSize);
    for (int step = 0; step < 100; ++step) {
      const std::uint64_t begin = random() % kSize;
      const ByteRange range{begin, random() % (kSize - begin)};
      const bool add = random() % 2 == 0;
      add ? set.add(range) : set.remove(range);
      for (std::uint64_t at = range.offset; at < range.end(); ++at) {
        model[at] = add;
      }
      const std::uint64_t from = random() % kSize;
      const ByteRange probe{from, random() % (kSize - from)};
      bool all = true;
      std::uint64_t missing_bytes = 0;
      for (std::uint64_t at = probe.offset; at < probe.end(); ++at) {
        all = all && model[at];
        missing_bytes += model[at] ? 0 : 1;
      }
      ASSERT_EQ(set.contains(probe), all);
      std::uint64_t found_missing = 0;
      for (const ByteRange& hole : set.missing_in(probe)) {
        ASSERT_FALSE(hole.empty());
        ASSERT_TRUE(probe.contains(hole));
        found_missing += hole.length;
      }
      ASSERT_EQ(found_missing, missing_bytes);
    }
  }
}

}  // namespace
}  // namespace larder
