// Disk work: answers in time or kTimedOut, once each, and tells of a disk that hangs.
#include "fscache/disk_work.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <latch>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/result.h"
#include "base/thread.h"
#include "testing/stepper.h"

namespace larder::fscache {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class DiskWorkTest : public ::testing::Test {
 protected:
  using Outcomes = std::vector<std::optional<Errc>>;  // nothing: it worked

  DiskWork::Outcome note() {
    return [this](const Result<>& result) {
      outcomes_.push_back(result ? std::nullopt : std::optional(result.error().code()));
    };
  }

  // An operation that the disk holds for so long, while everything else goes on.
  DiskWork::Operation hang(Duration time) {
    return [this, time]() -> Result<> {
      stepper_.advance(time);
      stepper_.run();
      return {};
    };
  }

  testing::Stepper stepper_;
  std::vector<bool> hangs_;
  Outcomes outcomes_;
  std::shared_ptr<DiskWork> work_ = std::make_shared<DiskWork>(
      stepper_, "disk", DiskWork::Limits{.threads = 8, .most_queued = 2, .deadline = seconds(5)},
      [this](const DiskWork& work) { hangs_.push_back(work.hangs()); });
};

TEST_F(DiskWorkTest, TellsTheResult) {
  work_->run([]() -> Result<> { return {}; }, note());
  work_->run([]() -> Result<> { return fail(Errc::kNoSpace, "full"); }, note());
  EXPECT_TRUE(outcomes_.empty()) << "it runs on the pool";
  stepper_.run();
  EXPECT_EQ(outcomes_, (Outcomes{std::nullopt, Errc::kNoSpace}));
  stepper_.advance(seconds(100));
  stepper_.run();
  EXPECT_TRUE(hangs_.empty());
}

TEST_F(DiskWorkTest, AnswersWhatIsLateAndOnlyOnce) {
  work_->run(hang(seconds(7)), note());
  stepper_.run();
  EXPECT_EQ(outcomes_, (Outcomes{Errc::kTimedOut}));
  EXPECT_EQ(hangs_, (std::vector{true, false}));
}

TEST_F(DiskWorkTest, HangsUntilTheLastOverdueOneIsDone) {
  work_->run(
      [this]() -> Result<> {
        work_->run(hang(seconds(7)), note());
        stepper_.run();  // the second hangs inside of the first, and ends before it
        EXPECT_EQ(hangs_, (std::vector{true}));
        return {};
      },
      note());
  stepper_.run();
  EXPECT_EQ(outcomes_, (Outcomes{Errc::kTimedOut, Errc::kTimedOut}));
  EXPECT_EQ(hangs_, (std::vector{true, false}));
}

TEST_F(DiskWorkTest, WhatWaitsBehindAHangingDiskIsLateToo) {
  bool ran = false;
  work_->run(
      [&]() -> Result<> {
        ran = true;
        return {};
      },
      note());
  stepper_.advance(seconds(7));  // the watch is queued before or behind it, as threads would race
  stepper_.run();
  EXPECT_TRUE(ran);
  EXPECT_EQ(outcomes_.size(), 1U);
}

TEST_F(DiskWorkTest, AFullQueueLeavesTheWorkToItsOwner) {
  int ran = 0;
  for (int i = 0; i < 3; ++i) {
    DiskWork::Operation operation = [&]() -> Result<> {
      ++ran;
      return {};
    };
    DiskWork::Outcome outcome = note();
    const bool taken = work_->try_run(operation, outcome);
    EXPECT_EQ(taken, i < 2);
    EXPECT_EQ(static_cast<bool>(operation), !taken);
    EXPECT_EQ(static_cast<bool>(outcome), !taken);
  }
  stepper_.run();
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(outcomes_.size(), 2U);
}

// A disk that is slow is not one that hangs, however much waits for it.
TEST_F(DiskWorkTest, ABacklogIsNoDiskThatHangs) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    testing::Stepper stepper(seed);  // threads and timers race
    outcomes_.clear();
    const auto work = std::make_shared<DiskWork>(
        stepper, "disk", DiskWork::Limits{.threads = 8, .most_queued = 2, .deadline = seconds(5)},
        [this](const DiskWork& told) { hangs_.push_back(told.hangs()); });
    for (int i = 0; i < 600; ++i) {
      // Each takes a fiftieth of the deadline, eight go on at a time.
      work->run(
          [&]() -> Result<> {
            stepper.advance(milliseconds(100) / 8);
            return {};
          },
          note());
    }
    stepper.run();
    EXPECT_TRUE(hangs_.empty()) << "seed " << seed;
    EXPECT_EQ(outcomes_.size(), 600U);
    EXPECT_GT(std::ranges::count(outcomes_, Errc::kTimedOut), 0) << "nobody waits for longer";
  }
}

// What is detached has no deadline, but what waits behind it has.
TEST_F(DiskWorkTest, HangsWhileNothingGetsItsTurn) {
  work_->run([]() -> Result<> { return {}; }, note());
  stepper_.run();  // the watch goes on
  work_->run_detached([this] {
    stepper_.advance(seconds(2));  // the watch is due before the other is queued
    work_->run([]() -> Result<> { return {}; }, note());
    stepper_.advance(seconds(7));
    stepper_.step();
    EXPECT_EQ(hangs_, (std::vector{true}));
    EXPECT_EQ(outcomes_, (Outcomes{std::nullopt, Errc::kTimedOut}));
  });
  stepper_.run();
  EXPECT_EQ(hangs_, (std::vector{true, false}));
  EXPECT_EQ(outcomes_.size(), 2U);
}

// The thread that is to tell of the hang may be slower than the disk.
TEST_F(DiskWorkTest, NewsThatComeLateAreNotOfThen) {
  std::latch runs(1);
  std::latch ends(1);
  Thread disk;
  const auto work =
      std::make_shared<DiskWork>(stepper_, "disk", DiskWork::Limits{}, [&](const DiskWork& told) {
        if (!disk.is_current()) {
          ends.count_down();
          disk.join();
        }
        hangs_.push_back(told.hangs());
      });
  work->run(
      [&]() -> Result<> {
        runs.count_down();
        ends.wait();
        return {};
      },
      note());
  disk = Thread("disk", [this] { stepper_.step(); });
  runs.wait();
  stepper_.advance(seconds(7));
  stepper_.step();
  EXPECT_EQ(hangs_, (std::vector{false, false}));
  EXPECT_FALSE(work->hangs());
}

TEST_F(DiskWorkTest, NobodyWaitsBehindWhatMayBeLeftOut) {
  std::vector<int> ran;
  DiskWork::Operation fill = [&]() -> Result<> {
    ran.push_back(2);
    return {};
  };
  DiskWork::Outcome outcome = note();
  ASSERT_TRUE(work_->try_run(fill, outcome));
  work_->run(
      [&]() -> Result<> {
        ran.push_back(1);
        return {};
      },
      note());
  stepper_.run();
  EXPECT_EQ(ran, (std::vector{1, 2}));
  EXPECT_EQ(outcomes_.size(), 2U);
}

TEST_F(DiskWorkTest, WhatMayBeLeftOutIsLeftOutWhileSomethingWaitsLong) {
  const auto taken = [this] {
    DiskWork::Operation fill = []() -> Result<> { return {}; };
    DiskWork::Outcome outcome = note();
    return work_->try_run(fill, outcome);
  };
  for (const bool waits_for_a_fill : {false, true}) {
    if (waits_for_a_fill) {
      EXPECT_TRUE(taken());
    } else {
      work_->run([]() -> Result<> { return {}; }, note());
    }
    stepper_.advance(seconds(1));
    EXPECT_FALSE(taken());
    stepper_.run();
  }
  EXPECT_TRUE(taken());
}

TEST_F(DiskWorkTest, AnOperationIsGoneBeforeItsOutcomeIsTold) {
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> watched = held;
  work_->run([held = std::move(held)]() -> Result<> { return {}; },
             [&](const Result<>&) { EXPECT_TRUE(watched.expired()); });
  stepper_.run();
  EXPECT_TRUE(watched.expired());
}

}  // namespace
}  // namespace larder::fscache
