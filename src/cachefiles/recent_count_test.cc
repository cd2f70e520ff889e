#include "cachefiles/recent_count.h"

#include <chrono>

#include <gtest/gtest.h>

#include "base/clock.h"

namespace larder::cachefiles {
namespace {

using std::chrono::minutes;

TEST(RecentCountTest, ForgetsAfterAnHour) {
  RecentCount count;
  const MonotonicTime begin{minutes(1'000'007)};
  EXPECT_EQ(count.in_last_hour(begin), 0U);
  count.add(begin);
  count.add(begin);
  count.add(begin + minutes(30));
  EXPECT_EQ(count.in_last_hour(begin + minutes(30)), 3U);
  EXPECT_EQ(count.in_last_hour(begin + minutes(59)), 3U);
  EXPECT_EQ(count.in_last_hour(begin + minutes(60)), 1U);
  count.add(begin + minutes(60));
  EXPECT_EQ(count.in_last_hour(begin + minutes(60)), 2U);
  EXPECT_EQ(count.in_last_hour(begin + minutes(500)), 0U);
}

}  // namespace
}  // namespace larder::cachefiles
