// The daemon must hold its cache, cull when asked and as much as asked, sleep when there is nothing
// to do, and neither an engine that goes nor a signal may find it at the wrong moment.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/result.h"
#include "cachefilesd/daemon_fixture_test.h"
#include "culling/fan_out.h"
#include "os/filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefilesd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DaemonTest : public DaemonFixture {
 protected:
  DaemonTest() { set_log_level(LogLevel::kError); }

  void TearDown() override { set_log_level(LogLevel::kInfo); }

  std::size_t graves() {
    std::size_t count = 0;
    EXPECT_TRUE(cache_.directory({"graveyard"})->list([&](const os::DirectoryEntry&) {
      ++count;
      return true;
    }));
    return count;
  }

  void bury(const std::string& name, int files) {
    const auto grave = cache_.directory({"graveyard", name});
    for (int i = 0; i < files; ++i) {
      ASSERT_TRUE(grave->create_file("dead" + std::to_string(i), 0600));
    }
  }
};

TEST_F(DaemonTest, CullsTheOldestUntilItIsEnough) {
  cache_.add_many(50);
  cache_.size = 40;
  ASSERT_TRUE(run().has_value());
  std::vector<std::string> oldest;
  oldest.reserve(10);
  for (int i = 0; i < 10; ++i) {
    oldest.push_back("Dobject" + std::to_string(i));
  }
  EXPECT_THAT(cache_.culled, ::testing::UnorderedElementsAreArray(oldest));
  EXPECT_EQ(started_, 1);
}

TEST_F(DaemonTest, TellsTheAgeOfTheOldestThatStaysOnceARoundIsOver) {
  cache_.add_many(50);
  cache_.size = 40;
  ASSERT_TRUE(run().has_value());
  ASSERT_EQ(cache_.told_oldest.size(), 1U);
  EXPECT_DOUBLE_EQ(cache_.told_oldest.front(), static_cast<double>(now_.seconds - 10'010));
}

TEST_F(DaemonTest, SleepsUntilALineSaysThatSomethingIsToGo) {
  cache_.add_many(10);
  waiter_.then([&] {
    EXPECT_THAT(cache_.asked, IsEmpty());
    cache_.push();  // nothing of interest
  });
  waiter_.then([&] {
    EXPECT_THAT(cache_.asked, IsEmpty());
    cache_.size = 9;
    cache_.push();
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.culled, ElementsAre("Dobject0"));
  EXPECT_EQ(waiter_.waits_.size(), 3U);
}

TEST_F(DaemonTest, SleepsWhenAllIsInUseAndWakesWhenSomethingWasReleased) {
  cache_.add_many(10);
  cache_.in_use = cache_.objects;
  cache_.size = 8;
  std::size_t asked = 0;
  waiter_.then([&] {
    asked = cache_.asked.size();
    EXPECT_GE(asked, 10U);
    cache_.push(0);
  });
  waiter_.then([&] {
    EXPECT_EQ(cache_.asked.size(), asked) << "looked again though nothing was released";
    cache_.in_use.erase("Dobject3");
    cache_.push(1);
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.culled, ElementsAre("Dobject3"));
}

TEST_F(DaemonTest, LooksAgainOnceAsMuchIsReleasedAsTheThresholdsSay) {
  config_.resume = {std::nullopt, 3};
  cache_.add_many(10);
  cache_.in_use = cache_.objects;
  cache_.size = 8;
  waiter_.then([&] {
    cache_.in_use.clear();
    cache_.push(2);
  });
  waiter_.then([&] {
    EXPECT_THAT(cache_.culled, IsEmpty());
    cache_.push(1);
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.culled.size(), 2U);
}

TEST_F(DaemonTest, LooksAgainWhenTheLimitsMoved) {
  cache_.add_many(10);
  cache_.in_use = cache_.objects;
  cache_.size = 8;
  waiter_.then([&] {
    cache_.in_use.clear();
    cache_.size = 7;
    cache_.push(0);
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.culled.size(), 3U);
}

// Else a client that opens and closes one file would have it walk over millions of others.
TEST_F(DaemonTest, RestsTenTimesAsLongAsTheLookAtEverythingTook) {
  cache_.add_many(10);
  cache_.in_use = cache_.objects;
  cache_.size = 8;
  cache_.on_cull = [&] { clock_.advance(milliseconds(7)); };
  waiter_.then([&] {
    cache_.on_cull = nullptr;
    cache_.in_use.clear();
    cache_.push(1);
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.culled.size(), 2U);
  const auto rest =
      std::ranges::find_if(waiter_.waits_, [](const auto& wait) { return wait.has_value(); });
  ASSERT_NE(rest, waiter_.waits_.end());
  EXPECT_GE(**rest, milliseconds(70));
}

// Nobody tells when a disk takes changes again.
// The round is what was looked at, not the time since something was culled last.
TEST_F(DaemonTest, DoesNotRestForTheHoursInWhichNothingWasToBeCulled) {
  cache_.add_many(10);
  cache_.size = 9;
  waiter_.then([&] {
    ASSERT_EQ(cache_.culled.size(), 1U);
    clock_.advance(std::chrono::hours(3));
    cache_.in_use = cache_.objects;
    cache_.size = 8;
    cache_.push(0);
  });
  waiter_.then([&] {
    cache_.in_use.clear();
    cache_.push(1);
  });
  const MonotonicTime began = clock_.now();
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.culled.size(), 2U);
  EXPECT_LT(clock_.now() - began, std::chrono::hours(3) + seconds(1));
}

TEST_F(DaemonTest, LooksAgainForWhatWasReleasedBehindItsBackInTheRound) {
  cache_.add_many(10);
  cache_.in_use = cache_.objects;
  cache_.size = 8;
  std::string released;
  cache_.on_cull = [&] {
    if (released.empty()) {
      released = cache_.asked.front();
      cache_.in_use.erase(released);
      cache_.push(1);
    }
  };
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.culled, ElementsAre(released));
}

// What was released before a round begins is met in it.
TEST_F(DaemonTest, LooksOnceForWhatWasReleasedBeforeTheRound) {
  cache_.add_many(10);
  cache_.in_use = cache_.objects;
  cache_.size = 8;
  std::size_t asked = 0;
  waiter_.then([&] {
    asked = cache_.asked.size();
    cache_.push(1);  // and is in use again
  });
  waiter_.then([&] { EXPECT_EQ(cache_.asked.size(), 2 * asked); });
  ASSERT_TRUE(run().has_value());
  EXPECT_GE(asked, 10U);
}

TEST_F(DaemonTest, ARefusedCullIsTriedAgainAfterAMinute) {
  cache_.add_many(10);
  cache_.size = 8;
  cache_.refuses = EROFS;
  int waited = 0;
  waiter_.on_time_ = [&] {
    EXPECT_GE(waiter_.waits_.back(), std::chrono::minutes(1));
    cache_.refuses = ++waited == 2 ? 0 : EROFS;
    waiter_.stop_ = waited > 2;
  };
  ::testing::internal::CaptureStderr();
  set_log_level(LogLevel::kInfo);
  ASSERT_TRUE(run().has_value());
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(waited, 2);
  EXPECT_EQ(cache_.culled.size(), 2U);
  EXPECT_THAT(said, ::testing::HasSubstr("cannot be culled: "));
  EXPECT_THAT(said, ::testing::HasSubstr("Read-only file system"));
  EXPECT_EQ(said.find("cannot be culled"), said.rfind("cannot be culled")) << "once";
  EXPECT_THAT(said, ::testing::Not(::testing::HasSubstr("0 pinned")));
}

TEST_F(DaemonTest, WithoutCullingItStillRemovesTheDead) {
  cache_.add_many(10);
  cache_.size = 1;
  bury("grave", 300);
  config_.culls = false;
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.asked, IsEmpty());
  EXPECT_EQ(graves(), 0U);
}

TEST_F(DaemonTest, TheCommandLinesWordAgainstCullingHolds) {
  cache_.add_many(10);
  cache_.size = 1;
  never_culls_ = true;
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.asked, IsEmpty());
}

// So many map logs may there be that the disk would be full before all are seen.
TEST_F(DaemonTest, CullsBeforeItHasLookedForAllLargeObjects) {
  cache_.add_many(10);
  cache_.size = 9;
  (void)cache_.directory({"maps"});
  std::size_t heard = 0;
  std::size_t before_the_first = 0;
  cache_.on_hear = [&] {
    ++heard;
    clock_.advance(milliseconds(50));
  };
  cache_.on_cull = [&] { before_the_first = before_the_first == 0 ? heard : before_the_first; };
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.culled.size(), 1U);
  EXPECT_LT(before_the_first, culling::kSamples + 20) << "those of the slice, and one of map logs";
}

// A million dead names in front of a cull would leave the disk full.
TEST_F(DaemonTest, TheDeadAreRemovedBetweenSlicesAndNeverInFrontOfThem) {
  cache_.add_many(40);
  cache_.size = 30;
  cache_.most_excess = 1;
  bury("wide", 600);
  std::vector<std::size_t> left;
  cache_.on_cull = [&] {
    std::size_t names = 0;
    if (const auto grave = cache_.directory({"graveyard"})->open_directory("wide")) {
      ASSERT_TRUE((*grave)->list([&](const os::DirectoryEntry&) {
        ++names;
        return true;
      }));
    }
    left.push_back(names);
  };
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.culled.size(), 10U);
  ASSERT_GE(left.size(), 6U);
  EXPECT_EQ(left.front(), 600U) << "the first cull did not come first";
  for (std::size_t i = 1; i < left.size(); ++i) {
    EXPECT_LE(left[i - 1] - left[i], 128U);
  }
  EXPECT_EQ(graves(), 0U);
}

TEST_F(DaemonTest, WhatIsBuriedLaterIsRemovedWhenALineSaysSo) {
  waiter_.then([&] {
    bury("grave", 3);
    cache_.push();
  });
  waiter_.then([&] { EXPECT_EQ(graves(), 0U); });
  ASSERT_TRUE(run().has_value());
}

// An engine that replaces an object's file has the new one there for a moment.
TEST_F(DaemonTest, AFileThatHasJustComeToLieAmongTheGravesStays) {
  const auto graveyard = cache_.directory({"graveyard"});
  ASSERT_TRUE(graveyard->create_file("x1x2x", 0600));
  now_ = graveyard->stat("x1x2x")->changed;
  now_.seconds += 10;
  waiter_.on_time_ = [&] { EXPECT_EQ(graves(), 1U); };
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(graves(), 0U) << "it goes when it is old enough, and nobody says so";
  ASSERT_EQ(waiter_.waits_.size(), 2U);
  EXPECT_EQ(waiter_.waits_.front(), seconds(61));
}

TEST_F(DaemonTest, AGraveThatCannotBeRemovedHoldsUpNoOtherAndIsTriedAgain) {
  bury("stuck", 1);
  faulty_.faults().fail_all(testing::FileCall::kName, EACCES);
  int waited = 0;
  waiter_.on_time_ = [&] {
    if (++waited == 1) {
      faulty_.faults().set_hook(nullptr);
      bury("later", 1);
      cache_.push();
    }
    EXPECT_LE(waited, 2);
    waiter_.stop_ = waited > 2;
  };
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(graves(), 0U);
}

TEST_F(DaemonTest, StopsInsideOfASlice) {
  cache_.add_many(900);
  cache_.size = 1;
  cache_.on_cull = [&] { waiter_.stop_ = true; };
  ASSERT_TRUE(run().has_value());
  EXPECT_LE(cache_.asked.size(), 256U);
  EXPECT_THAT(waiter_.waits_, IsEmpty());
}

TEST_F(DaemonTest, StopsASliceWhenTheOtherEndSaysThatItIsEnough) {
  cache_.add_many(900);
  cache_.size = 1;
  cache_.on_cull = [&] {
    cache_.size = 900;
    cache_.push();
  };
  ASSERT_TRUE(run().has_value());
  EXPECT_LE(cache_.asked.size(), 256U);
}

TEST_F(DaemonTest, AConfigurationReadAgainGivesWhatHasChanged) {
  cache_.add_many(10);
  cache_.size = 8;
  config_.culls = false;
  waiter_.then([&] {
    new_config_ = config_;
    new_config_->limits.brun = 20;
    new_config_->directory = "/elsewhere";
    new_config_->culls = true;
    waiter_.reload_ = true;
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.given, ElementsAre(Limits{7, 5, 1, 20, 5, 1}));
  EXPECT_EQ(cache_.culled.size(), 2U);
}

TEST_F(DaemonTest, AConfigurationThatIsWrongChangesNothing) {
  waiter_.then([&] {
    new_config_ = fail(Errc::kInvalid, "no");
    waiter_.reload_ = true;
  });
  waiter_.then([&] {
    new_config_ = config_;
    new_config_->limits.bstop = 2;
    waiter_.reload_ = true;
  });
  set_log_level(LogLevel::kError);
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.given, ElementsAre(Limits{7, 5, 1, 7, 5, 2}));
}

// On their way to where they are to be, limits may ask for more.
TEST_F(DaemonTest, WhatIsPushedBeforeAllLimitsAreGivenIsOutdated) {
  cache_.add_many(10);
  cache_.size = 8;
  waiter_.then([&] {
    EXPECT_EQ(cache_.culled.size(), 2U);
    new_config_ = config_;
    cache_.on_reconfigure = [&] {
      cache_.size = 1;
      cache_.push();
      cache_.size = 7;
    };
    waiter_.reload_ = true;
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.given.size(), 1U);
  EXPECT_EQ(cache_.culled.size(), 3U);
}

TEST_F(DaemonTest, APredecessorThatIsOnItsWayOutIsWaitedFor) {
  cache_.refused_binds = 3;
  cache_.add_many(3);
  cache_.size = 2;
  waiter_.then([&] { cache_.broken = Error(Errc::kCacheDead, "hung up"); });
  waiter_.then([] {});
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(cache_.binds, 5);
  EXPECT_EQ(started_, 1);
  EXPECT_EQ(cache_.culled.size(), 1U);
}

TEST_F(DaemonTest, WhoHoldsTheCacheForLongIsTold) {
  cache_.refused_binds = 1000;
  const MonotonicTime begin = clock_.now();
  const auto done = run();
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().message(), "held by another channel");
  EXPECT_GE(clock_.now() - begin, std::chrono::seconds(10));
  EXPECT_LE(clock_.now() - begin, std::chrono::seconds(11));
  EXPECT_LT(cache_.binds, 20);
  EXPECT_EQ(started_, 0);
}

TEST_F(DaemonTest, ComesBackToAnEngineThatWentWithGrowingPauses) {
  waiter_.then([&] {
    cache_.broken = Error(Errc::kCacheDead, "hung up");
    refusals_ = 10;
  });
  waiter_.then([&] {
    EXPECT_EQ(cache_.binds, 2);
    cache_.add_many(3);
    cache_.size = 2;
    cache_.push();
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_EQ(opened_, 12);
  EXPECT_EQ(started_, 1);
  EXPECT_EQ(cache_.culled.size(), 1U);
  std::vector<Duration> pauses;
  for (const auto& wait : waiter_.waits_) {
    if (wait) {
      pauses.push_back(*wait);
    }
  }
  ASSERT_EQ(pauses.size(), 11U);
  EXPECT_EQ(pauses[0], milliseconds(100));
  EXPECT_EQ(pauses[1], milliseconds(200));
  EXPECT_EQ(pauses.back(), std::chrono::seconds(30));
}

TEST_F(DaemonTest, AnEngineThatWentInTheMidstOfASliceIsNoticed) {
  cache_.add_many(900);
  cache_.size = 1;
  cache_.on_cull = [&] {
    cache_.on_cull = nullptr;
    cache_.size = 900;
    cache_.broken = Error(Errc::kCacheDead, "hung up");
  };
  waiter_.then([&] { EXPECT_EQ(cache_.binds, 2); });
  ASSERT_TRUE(run().has_value());
  EXPECT_LE(cache_.asked.size(), 256U);
}

TEST_F(DaemonTest, ACacheThatDoesNotComeUpAtFirstIsAnError) {
  refusals_ = 1;
  const auto result = run();
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().message(), "nobody listens");
  EXPECT_EQ(started_, 0);
}

TEST_F(DaemonTest, AKernelsCacheThatFailedIsTheEnd) {
  cache_.kernels = true;
  waiter_.then([&] { cache_.broken = Error(Errc::kIo, "it has failed"); });
  const auto result = run();
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().message(), "it has failed");
  EXPECT_EQ(opened_, 1);
}

// Only who starts may make it again.
TEST_F(DaemonTest, ADirectoryThatWasRemovedIsTheEnd) {
  waiter_.then([&] {
    cache_.filesystem.remove_root();
    cache_.broken = Error(Errc::kCacheDead, "hung up");
  });
  const auto result = run();
  ASSERT_FALSE(result.has_value());
  EXPECT_NE(result.error().message().find("was removed"), std::string::npos);
  EXPECT_EQ(cache_.binds, 1);
}

// What is not an object is nothing that a cull is asked for, nor followed, nor a reason to fail.
TEST_F(DaemonTest, UnexpectedThingsAreLeftToTheEngine) {
  cache_.add("Da", 1);
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->make_directory("Ddirectory", 0700));
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->create_file("strange", 0600));
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume"})->create_file("@08", 0600));
  ASSERT_TRUE(cache_.directory({"cache"})->create_file("Ifile", 0600));
  ASSERT_TRUE(cache_.directory({"cache", "other"})->create_file("x", 0600));
  cache_.size = 0;
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.asked, ElementsAre("Da"));
  EXPECT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->stat("Ddirectory").has_value());
  EXPECT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->stat("strange").has_value());
  EXPECT_TRUE(cache_.directory({"cache"})->stat("Ifile").has_value());
}

TEST_F(DaemonTest, UnexpectedThingsOfAKernelsCacheAreBuried) {
  cache_.kernels = true;
  cache_.add("Da", 1);
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->make_directory("Ddirectory", 0700));
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->create_file("strange", 0600));
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume"})->create_file("@08", 0600));
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume", "J11"})->create_file("x", 0600));
  ASSERT_TRUE(cache_.directory({"cache"})->create_file("Ifile", 0600));
  ASSERT_TRUE(cache_.directory({"cache", "other"})->create_file("x", 0600));
  cache_.size = 0;
  waiter_.then([&] { cache_.push(); });
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.asked, ElementsAre("Da"));
  std::vector<std::string> names;
  const auto note = [&](const os::DirectoryEntry& entry) {
    names.push_back(entry.name);
    return true;
  };
  ASSERT_TRUE(cache_.directory({"cache"})->list(note));
  ASSERT_TRUE(cache_.directory({"cache", "Ivolume", "@07"})->list(note));
  EXPECT_THAT(names, ElementsAre("Ivolume"));
  EXPECT_EQ(graves(), 0U);
}

TEST_F(DaemonTest, VolumesThatComeLaterAreCulledToo) {
  cache_.add("Da", 2);
  waiter_.then([&] {
    cache_.add("Db", 1, "Ianother");
    cache_.size = 1;
    cache_.push();
  });
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(cache_.culled, ElementsAre("Db"));
}

}  // namespace
}  // namespace larder::cachefilesd
