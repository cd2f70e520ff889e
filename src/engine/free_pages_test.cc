#include "engine/free_pages.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace larder::engine {
namespace {

TEST(FreePagesTest, TheShortestRunThatIsLongEnoughIsTaken) {
  FreePages free(100);
  EXPECT_EQ(free.take(60).first, 0U);
  EXPECT_EQ(free.take(10).first, 60U);
  EXPECT_EQ(free.take(10).first, 70U);
  free.give({20, 12});  // free: 20 to 32, 80 to 100
  const PageRun shorter = free.take(5);
  EXPECT_EQ(shorter.first, 20U);
  EXPECT_EQ(shorter.count, 5U);
  const PageRun longer = free.take(8);
  EXPECT_EQ(longer.first, 80U);
  EXPECT_EQ(longer.count, 8U);
}

TEST(FreePagesTest, ALongerRunThanThereIsIsCutShort) {
  FreePages free(10);
  EXPECT_EQ(free.take(4).count, 4U);
  EXPECT_EQ(free.take(20).count, 6U);
  EXPECT_EQ(free.take(1).count, 0U);
  EXPECT_EQ(free.count(), 0U);
}

TEST(FreePagesTest, ARunIsContinuedWhereItIsFree) {
  FreePages free(20);
  const PageRun first = free.take(5);
  EXPECT_EQ(free.take_at(first.end(), 3).count, 3U);
  EXPECT_EQ(free.take_at(6, 1).count, 0U) << "it is taken";
  EXPECT_EQ(free.take_at(15, 10).count, 5U) << "to the end";
  EXPECT_EQ(free.take_at(8, 100).count, 7U) << "up to what is taken";
}

// In whatever order: what is taken belongs to nobody else, and in the end it is one run again.
TEST(FreePagesTest, RunsGivenBackInAnyOrderJoin) {
  std::mt19937_64 random(7);
  constexpr std::uint32_t kPages = 300;
  FreePages free(kPages);
  std::vector<PageRun> taken;
  std::vector<bool> is_taken(kPages, false);
  const auto give_one = [&] {
    std::swap(taken[random() % taken.size()], taken.back());
    const PageRun run = taken.back();
    taken.pop_back();
    std::fill_n(is_taken.begin() + run.first, run.count, false);
    free.give(run);
  };
  for (int round = 0; round < 20'000; ++round) {
    const auto wanted = static_cast<std::uint32_t>(1 + random() % 40);
    if (random() % 2 == 0) {
      const PageRun run = random() % 4 == 0
                              ? free.take_at(static_cast<std::uint32_t>(random() % kPages), wanted)
                              : free.take(wanted);
      ASSERT_LE(run.count, wanted);
      for (std::uint32_t page = run.first; page < run.end(); ++page) {
        ASSERT_FALSE(is_taken[page]);
        is_taken[page] = true;
      }
      if (run.count != 0) {
        taken.push_back(run);
      }
    } else if (!taken.empty()) {
      give_one();
    }
    ASSERT_EQ(free.count(), std::count(is_taken.begin(), is_taken.end(), false));
  }
  while (!taken.empty()) {
    give_one();
  }
  ASSERT_EQ(free.runs().size(), 1U);
  EXPECT_EQ(free.take(kPages).count, kPages);
}

}  // namespace
}  // namespace larder::engine
