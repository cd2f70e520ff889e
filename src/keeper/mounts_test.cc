#include "keeper/mounts.h"

#include <chrono>
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"

namespace larder::keeper {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class MountsTest : public testing::Test {
 protected:
  void add(const std::string& spec) {
    HeldMount mount;
    mount.spec = spec;
    mounts_.add(std::move(mount));
  }

  Mounts mounts_;
  MonotonicTime now_{minutes(1000)};
};

TEST_F(MountsTest, ParksForTenMinutesFromTheFirstOfThreeDeaths) {
  for (int death = 0; death < 2; ++death) {
    add("source=a\n");
    EXPECT_THAT(mounts_.end_all(now_), IsEmpty());
    EXPECT_EQ(mounts_.parked_for("source=a\n", now_), Duration::zero());
    now_ += minutes(2);
  }
  add("source=a\n");
  add("source=b\n");
  EXPECT_THAT(mounts_.end_all(now_), ElementsAre(HasSubstr("(source=a) was active")));
  EXPECT_TRUE(mounts_.all().empty());
  EXPECT_EQ(mounts_.parked_for("source=a\n", now_), minutes(6));
  EXPECT_EQ(mounts_.parked_for("source=b\n", now_), Duration::zero()) << "one death only";
  now_ += minutes(6);
  EXPECT_EQ(mounts_.parked_for("source=a\n", now_), Duration::zero()) << "not for good";
}

TEST_F(MountsTest, DeathsThatAreFarApartParkNothing) {
  for (int death = 0; death < 10; ++death) {
    add("source=a\n");
    EXPECT_THAT(mounts_.end_all(now_), IsEmpty());
    now_ += minutes(5) + seconds(1);
  }
}

TEST_F(MountsTest, IdsAreNeverUsedTwice) {
  EXPECT_EQ(mounts_.add({}), 1U);
  mounts_.remove(1);
  EXPECT_EQ(mounts_.add({}), 2U);
  EXPECT_EQ(mounts_.find(1), nullptr);
}

}  // namespace
}  // namespace larder::keeper
