#include "base/linger_list.h"

#include <chrono>
#include <memory>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"

namespace larder {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

MonotonicTime at(int seconds) {
  return MonotonicTime() + std::chrono::seconds(seconds);
}

TEST(LingerListTest, WhatIsUsedAgainIsHereOnceAndLast) {
  LingerList<int> list;
  for (int times = 0; times < 100; ++times) {
    list.add(1, at(10));
  }
  list.add(2, at(11));
  list.add(1, at(12));
  EXPECT_EQ(list.size(), 2U);
  EXPECT_THAT(list.take_over(at(11)), ElementsAre(2));
  EXPECT_THAT(list.take_over(at(11)), IsEmpty()) << "its time began anew";
  EXPECT_THAT(list.take_over(at(12)), ElementsAre(1));
  EXPECT_EQ(list.take_first(), std::nullopt);
}

TEST(LingerListTest, TheNextLookIsWhenTheFirstIsOver) {
  LingerList<int> list;
  EXPECT_EQ(list.next_look(at(0)), std::nullopt);
  list.add(1, at(10));
  list.add(2, at(20));
  EXPECT_EQ(list.next_look(at(4)), std::chrono::seconds(6));
  const std::optional<Duration> soon = list.next_look(at(10));
  ASSERT_TRUE(soon);
  EXPECT_GT(*soon, Duration(0)) << "not again and again for each of many";
  EXPECT_LE(*soon, std::chrono::seconds(1));
}

TEST(LingerListTest, AFewOfManyAreGivenForRoom) {
  EXPECT_EQ(LingerList<int>::part_of(0), 0U);
  EXPECT_EQ(LingerList<int>::part_of(5), 5U);
  EXPECT_EQ(LingerList<int>::part_of(50), 8U);
  EXPECT_EQ(LingerList<int>::part_of(2048), 256U);
}

TEST(LingerListTest, ForRoomThoseUnusedLongestGo) {
  LingerList<int> list;
  for (int thing = 0; thing < 20; ++thing) {
    list.add(thing, at(10));
  }
  list.add(0, at(11));
  EXPECT_THAT(list.take_part(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(list.take_part(), ElementsAre(9, 10, 11, 12, 13, 14, 15, 16));
  EXPECT_THAT(list.take_part(), ElementsAre(17, 18, 19, 0));
  EXPECT_THAT(list.take_part(), IsEmpty());
}

TEST(LingerListTest, WhatIsTakenIsNotHeldAnyMore) {
  LingerList<std::shared_ptr<int>> list;
  const auto thing = std::make_shared<int>(1);
  list.add(thing, at(10));
  list.add(thing, at(11));
  EXPECT_EQ(thing.use_count(), 3) << "in the order, and to be found by";
  EXPECT_EQ(list.take_part().size(), 1U);
  EXPECT_EQ(thing.use_count(), 1);
}

}  // namespace
}  // namespace larder
