#include "culling/rotation.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/result.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "os/filesystem.h"

namespace larder::culling {
namespace {

constexpr double kStampSeconds = 60;
constexpr os::FileTime kNow{1'000'000, 0};
constexpr std::uint64_t kSize = 4096;

os::FileStat used(std::int64_t modified, std::int64_t accessed) {
  os::FileStat stat;
  stat.modified = {modified, 0};
  stat.accessed = {accessed, 0};
  return stat;
}

// A cache of names and stats.
class FakeFanOut final : public FanOut {
 public:
  explicit FakeFanOut(std::size_t directories) : objects_(directories) {}

  void add(std::size_t directory, const std::string& name, const os::FileStat& stat,
           std::uint64_t bytes) {
    Candidate& added = objects_[directory][name] = {name, stat, bytes};
    added.stat.inode = ++inodes_;
    total_ += bytes;
    ++count_;
  }

  // Objects of kSize, last used at a random moment, all of them used again.
  void add_many(std::uint64_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (std::uint64_t i = 0; i < count; ++i) {
      add(random() % objects_.size(), "o" + std::to_string(i),
          used(0, static_cast<std::int64_t>(100 + random() % 999'900)), kSize);
    }
  }

  std::size_t directories() override { return objects_.size(); }

  void expect(std::span<const std::size_t> directories) override {
    expected_.assign(directories.begin(), directories.end());
  }

  Result<> list(std::size_t directory, const std::function<bool(Candidate&&)>& visit) override {
    listed_.push_back(directory);
    unexpected_ += std::ranges::find(expected_, directory) == expected_.end() ? 1 : 0;
    for (const auto& [name, candidate] : objects_[directory]) {
      if (!visit(Candidate(candidate))) {
        break;
      }
    }
    return {};
  }

  bool in_use(std::size_t, std::string_view name) override {
    return hinted_.contains(std::string(name));
  }

  Result<std::vector<Result<Freed>>> cull(std::span<const Placed> objects) override {
    if (broken_) {
      return fail(Errc::kCacheDead, "gone");
    }
    batches_.push_back(objects.size());
    most_listed_ = std::max(most_listed_, listed_.size() - listed_before_);
    listed_before_ = listed_.size();
    std::vector<Result<Freed>> answers;
    runs_.push_back(0);
    for (std::span<const Placed> left = objects; !left.empty(); ++runs_.back()) {
      left = left.subspan(run_of(left));
    }
    for (const auto& [directory, object] : objects) {
      if (busy_.contains(object.name)) {
        answers.push_back(fail(Errc::kBusy, object.name));
      } else if (objects_[directory].erase(object.name) == 0 || gone_.contains(object.name)) {
        answers.push_back(fail(Errc::kNotFound, object.name));
      } else {
        culled_.push_back(object.name);
        total_ -= object.bytes;
        --count_;
        answers.push_back(Freed{object.bytes + given_beside_, 1});
      }
    }
    return answers;
  }

  Result<Candidate> look_at(std::size_t directory, std::string_view name) override {
    const auto found = objects_[directory].find(std::string(name));
    if (found == objects_[directory].end()) {
      return fail(Errc::kNotFound, std::string(name));
    }
    return found->second;
  }

  bool keep_going() override { return keep_going_ == nullptr || keep_going_(); }

  [[nodiscard]] Share share(std::uint64_t free_bytes) const {
    return {total_, count_, free_bytes, 0};
  }

  std::vector<std::map<std::string, Candidate>> objects_;
  std::set<std::string> hinted_;  // known to be in use
  std::set<std::string> busy_;    // in use, which only cull() says
  std::set<std::string> gone_;    // taken away between list() and cull()
  std::uint64_t inodes_ = 0;
  std::uint64_t given_beside_ = 0;
  bool broken_ = false;
  std::function<bool()> keep_going_;
  std::vector<std::string> culled_;
  std::vector<std::size_t> batches_;  // their sizes
  std::vector<std::size_t> runs_;     // of objects of one directory, in each
  std::vector<std::size_t> listed_;
  std::vector<std::size_t> expected_;
  std::size_t unexpected_ = 0;   // listings
  std::size_t most_listed_ = 0;  // between two culls
  std::size_t listed_before_ = 0;
  std::uint64_t total_ = 0;
  std::uint64_t count_ = 0;
};

class RotationTest : public ::testing::Test {
 protected:
  Result<Outcome> cull(FakeFanOut& cache, std::uint64_t free_bytes) {
    return rotation_.cull_slice(cache, large_, cache.share(free_bytes), kNow, kStampSeconds);
  }

  // A small cache, the older the lower the number.
  static FakeFanOut& fill_small(FakeFanOut& cache, int count) {
    for (int i = 0; i < count; ++i) {
      cache.add(static_cast<std::size_t>(i * 37 % 256), "object" + std::to_string(i),
                used(0, 10'000 + i), kSize);
    }
    return cache;
  }

  LargeObjects large_;
  Rotation rotation_{0};
};

TEST(SliceTest, TakesAsManySamplesAsTheShareNeeds) {
  const std::uint64_t million = 1'000'000;
  EXPECT_EQ(slice_of(256, {100 * million, million, 1, 0}), 1U);
  EXPECT_EQ(slice_of(256, {100 * million, million, million, 0}), 11U);
  EXPECT_EQ(slice_of(256, {100 * million, million, 3 * million, 0}), 32U);
  EXPECT_EQ(slice_of(256, {100 * million, million, 0, million / 10}), 107U);
  EXPECT_EQ(slice_of(256, {100 * million, million, 90 * million, 0}), 256U);
  EXPECT_EQ(slice_of(256, {100 * million, 100, 3 * million, 0}), 256U);
  EXPECT_EQ(slice_of(0, {0, 0, 0, 0}), 0U);
}

// A hundred objects are too few to tell what is old in the cache.
TEST(SliceTest, JudgesSmallSamplesTogether) {
  EXPECT_EQ(together_of(256, 8192), 256U);
  EXPECT_EQ(together_of(256, 20'000), 13U);
  EXPECT_EQ(together_of(256, 60'000), 4U);
  EXPECT_EQ(together_of(256, 10'000'000), 1U);
}

TEST_F(RotationTest, TheOldestOfASmallCacheGoFirstPinnedAndUsedNever) {
  FakeFanOut cache(256);
  fill_small(cache, 200);
  cache.objects_[3 * 37]["object3"].stat.mode = 01600;
  cache.hinted_.insert("object5");
  const Outcome outcome = cull(cache, 10 * kSize).value();
  std::ranges::sort(cache.culled_, {}, [](const auto& name) { return std::stoi(name.substr(6)); });
  const std::vector<std::string> expected{"object0", "object1", "object2", "object4",  "object6",
                                          "object7", "object8", "object9", "object10", "object11"};
  EXPECT_EQ(cache.culled_, expected);
  EXPECT_EQ(outcome.freed.bytes, 10 * kSize);
  EXPECT_EQ(outcome.freed.files, 10U);
  EXPECT_EQ(outcome.pinned, 1U);
  EXPECT_EQ(outcome.in_use, 1U);
  EXPECT_FALSE(outcome.exhausted);
}

// What came into use or went away since it was listed does not count as freed: others go for it.
TEST_F(RotationTest, ABatchWithBusyAndGoneObjectsIsFollowedByAnother) {
  FakeFanOut cache(256);
  cache.add_many(5, 1);
  for (int i = 0; i < 12; ++i) {
    cache.add(7, "x" + std::to_string(i), used(0, 10 + i), kSize);
  }
  cache.busy_ = {"x1", "x2"};
  cache.gone_ = {"x3"};
  const Outcome outcome = cull(cache, 8 * kSize).value();
  EXPECT_EQ(outcome.freed.files, 8U);
  EXPECT_EQ(outcome.in_use, 2U);
  EXPECT_EQ(cache.batches_, (std::vector<std::size_t>{8, 3}));
  EXPECT_EQ(cache.culled_,
            (std::vector<std::string>{"x0", "x4", "x5", "x6", "x7", "x8", "x9", "x10"}));
}

TEST_F(RotationTest, ABatchIsNeverTooLong) {
  FakeFanOut cache(1);
  cache.add_many(2000, 2);
  EXPECT_EQ(cull(cache, 1000 * kSize)->freed.files, 1000U);
  EXPECT_EQ(cache.batches_, (std::vector<std::size_t>{256, 256, 256, 232}));
}

// Each directory is gone to once, though those with the highest scores are all over them.
TEST_F(RotationTest, ABatchHoldsWhatGoesOfSeveralDirectories) {
  FakeFanOut cache(256);
  cache.add_many(4000, 6);
  EXPECT_EQ(cull(cache, 1000 * kSize)->freed.files, 1000U);
  EXPECT_EQ(cache.batches_, (std::vector<std::size_t>{256, 256, 256, 232}));
  EXPECT_LE(std::accumulate(cache.runs_.begin(), cache.runs_.end(), std::size_t{0}), 256U + 3);
}

// Inodes that are neighbours share blocks of the disk.
TEST_F(RotationTest, WhatGoesOfADirectoryGoesInTheOrderOfInodes) {
  FakeFanOut cache(1);
  for (int i = 0; i < 9; ++i) {
    cache.add(0, "x" + std::to_string(9 - i), used(0, 1000 * (i * 5 % 9)), kSize);
  }
  ASSERT_TRUE(cull(cache, 4 * kSize));
  EXPECT_EQ(cache.culled_, (std::vector<std::string>{"x9", "x7", "x5", "x3"}));
}

// An object may give back more than its file holds.
TEST_F(RotationTest, NothingMoreGoesThanIsDue) {
  FakeFanOut cache(256);
  cache.add_many(4000, 7);
  cache.given_beside_ = kSize;
  EXPECT_EQ(cull(cache, 1000 * kSize)->freed.files, 512U);
  EXPECT_GT(rotation_.oldest_seconds(), 950'000);  // of those that were due at first
}

// Else who culls all that is not in use would never have anything to tell.
TEST_F(RotationTest, WhereNothingStaysNobodyIsOlderThanTheYoungestThatWent) {
  FakeFanOut cache(16);
  cache.add(1, "older", used(0, 400'000), kSize);
  cache.add(2, "younger", used(0, 700'000), kSize);
  cache.add(3, "read", used(0, 100'000), kSize);
  cache.hinted_.insert("read");
  EXPECT_EQ(cull(cache, 3 * kSize)->freed.files, 2U);
  EXPECT_DOUBLE_EQ(rotation_.oldest_seconds(), 300'000);
}

// Three per cent of many objects: an eighth of them is looked at, and what goes is old.
TEST_F(RotationTest, ASliceLooksAtAnEighthAndTakesOldOnes) {
  FakeFanOut cache(256);
  constexpr std::uint64_t kObjects = 60'000;
  cache.add_many(kObjects, 42);
  const std::uint64_t due = kObjects * kSize / 100 * 3;
  Rotation rotation(17);
  const Outcome outcome =
      rotation.cull_slice(cache, large_, cache.share(due), kNow, kStampSeconds).value();
  EXPECT_GE(outcome.freed.bytes, due);
  EXPECT_LE(outcome.freed.bytes, due + kSize * 64);
  EXPECT_EQ(cache.listed_.size(), 32U);
  EXPECT_EQ(cache.listed_.front(), 17U);
  EXPECT_LT(rotation.looked_at(), kObjects / 7);
  EXPECT_GT(rotation.oldest_seconds(), 700'000);
}

// A working set that nobody uses any more goes before what was filled since, used again or not.
TEST_F(RotationTest, WhatCameSinceOldThingsAreNotUsedStays) {
  for (const bool is_used : {true, false}) {
    FakeFanOut cache(256);
    std::mt19937_64 random(51);
    for (int i = 0; i < 60'000; ++i) {
      const bool old = i % 2 == 0;
      const auto since = static_cast<std::int64_t>(random() % 400'000);
      const std::int64_t filled = 1'000'000 - since;
      // Some of the old ones, if any, are used all the time; the new ones came in the last 400,000
      // s.
      const std::int64_t last = is_used && i % 20 == 0 ? 999'990 : 600'000 - since;
      cache.add(random() % 256, (old ? "old" : "new") + std::to_string(i),
                old ? used(0, last) : used(filled, filled), kSize);
    }
    ASSERT_TRUE(cull(cache, cache.total_ / 100 * 10));
    const auto fresh =
        std::ranges::count_if(cache.culled_, [](const auto& name) { return name[0] == 'n'; });
    EXPECT_EQ(fresh > 0, is_used);
  }
}

// While something is culled, whoever lists may list what comes next.
TEST_F(RotationTest, WhatIsListedNextIsExpectedBefore) {
  FakeFanOut cache(512);
  cache.add_many(60'000, 43);
  const std::size_t together = together_of(256, 60'000) * 2;
  ASSERT_TRUE(cull(cache, 60'000 * kSize / 100 * 30));
  EXPECT_EQ(cache.unexpected_, together);
  EXPECT_GT(cache.listed_.size(), together * 10);
  EXPECT_TRUE(cache.expected_.empty());
}

// A tenth is old, and more than that of each sample that is looked at would be asked for: what is
// young stays until nothing old is left in any sample.
TEST_F(RotationTest, WhatIsYoungStaysBesideWhatIsOld) {
  FakeFanOut cache(256);
  constexpr int kObjects = 60'000;
  for (int i = 0; i < kObjects; ++i) {
    const bool old = i % 10 == 0;
    cache.add(static_cast<std::size_t>(i / 10 % 256), (old ? "old" : "young") + std::to_string(i),
              used(0, old ? 100'000 + i : 990'000 - i % 100), kSize);
  }
  const std::uint64_t due = kObjects / 100 * 8 * kSize;
  std::uint64_t freed = 0;
  for (int slice = 0; slice < 20 && freed < due; ++slice) {
    freed += cull(cache, due - freed)->freed.bytes;
  }
  EXPECT_GE(freed, due);
  EXPECT_LT(std::ranges::count_if(cache.culled_, [](const auto& name) { return name[0] == 'y'; }),
            kObjects / 1000);
}

// Else a cache full of files that are open for long would be taken for one of which nothing can go.
TEST_F(RotationTest, WhatIsInUseDoesNotSayWhatIsOld) {
  FakeFanOut cache(256);
  constexpr int kObjects = 60'000;
  for (int i = 0; i < kObjects; ++i) {
    const bool open = i % 10 == 0;
    const std::string name = std::to_string(i);
    cache.add(static_cast<std::size_t>(i / 10 % 256), name,
              used(0, open ? 1000 : 990'000 - i % 100), kSize);
    if (open) {
      cache.busy_.insert(name);
    }
  }
  const std::uint64_t due = kObjects / 100 * 3 * kSize;
  const Outcome outcome = cull(cache, due).value();
  EXPECT_GE(outcome.freed.bytes, due);
  EXPECT_GT(outcome.in_use, 0U);
}

// However much is owed, and whatever was in use in the samples before. Four are judged as one here.
TEST_F(RotationTest, NoSampleLosesMoreThanAQuarter) {
  FakeFanOut cache(256);
  cache.add_many(60'000, 43);
  const auto sizes = [&] {
    std::vector<std::size_t> found(64);
    for (std::size_t i = 0; i < 256; ++i) {
      found[i / 4] += cache.objects_[i].size();
    }
    return found;
  };
  const std::vector<std::size_t> before = sizes();
  for (std::size_t i = 0; i < 256; ++i) {
    for (const auto& [name, candidate] : cache.objects_[i]) {
      if (i / 4 % 4 != 3) {
        cache.busy_.insert(name);
      }
    }
  }
  ASSERT_TRUE(cull(cache, cache.total_ / 100 * 24));
  const std::vector<std::size_t> after = sizes();
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t most = before[i] / 4 + 1;
    EXPECT_EQ(before[i] - after[i], i % 4 == 3 ? most : 0);
  }
}

// What must go of all must go of each: to look again at what stays would find nothing better.
TEST_F(RotationTest, HalfGoesInOneLookThoughSomeSamplesWereCulledBefore) {
  FakeFanOut cache(256);
  cache.add_many(60'000, 50);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(cull(cache, cache.total_ / 100 * 3));
  }
  const std::uint64_t before = rotation_.looked_at();
  const std::uint64_t objects = cache.count_;
  // Of what is used, directories hold a part that cannot go.
  const Share share{cache.total_ / 100 * 106, objects, cache.total_ / 100 * 53, 0};
  const Outcome outcome = rotation_.cull_slice(cache, large_, share, kNow, kStampSeconds).value();
  EXPECT_GE(outcome.freed.bytes, share.free_bytes);
  EXPECT_EQ(rotation_.looked_at() - before, objects);
}

TEST_F(RotationTest, HalfOfTheCacheGoesInOneLookAtIt) {
  FakeFanOut cache(256);
  constexpr std::uint64_t kObjects = 60'000;
  cache.add_many(kObjects, 49);
  const Outcome outcome = cull(cache, cache.total_ / 2).value();
  EXPECT_NEAR(static_cast<double>(outcome.freed.files), kObjects / 2.0, 64);
  EXPECT_EQ(rotation_.looked_at(), kObjects);
  EXPECT_LT(rotation_.oldest_seconds(), 600'000);
}

// A volume that nobody uses any more makes room for one in use, though each directory of it is old.
TEST_F(RotationTest, TheDirectoriesOfAllVolumesWithOneNumberAreOneSample) {
  FakeFanOut cache(512);
  for (std::size_t i = 0; i < 40'000; ++i) {
    const bool old = i % 4 == 0;
    cache.add((old ? 0 : 256) + i / 4 % 256, (old ? "old" : "new") + std::to_string(i),
              used(0, (old ? 1000 : 900'000) + static_cast<std::int64_t>(i)), kSize);
  }
  const Outcome outcome = cull(cache, cache.total_ / 100 * 3).value();
  EXPECT_GE(outcome.freed.files, 1199U);
  EXPECT_TRUE(std::ranges::all_of(cache.culled_, [](const auto& name) { return name[0] == 'o'; }));
  EXPECT_EQ(cache.listed_.size(), 64U);
  EXPECT_EQ(cache.listed_[1], 256U);
}

TEST_F(RotationTest, StopsBetweenDirectoriesAndGoesOnThereAfterARestart) {
  FakeFanOut cache(256);
  cache.add_many(60'000, 44);
  cache.keep_going_ = [&] { return cache.listed_.size() < 5; };
  const Outcome outcome = cull(cache, cache.total_ / 100 * 3).value();
  EXPECT_TRUE(outcome.stopped);
  EXPECT_FALSE(outcome.exhausted);
  EXPECT_EQ(cache.listed_, (std::vector<std::size_t>{0, 1, 2, 3, 4}));
  EXPECT_GT(outcome.freed.files, 4U);
  EXPECT_EQ(rotation_.cursor(), 4U);

  cache.keep_going_ = nullptr;
  cache.listed_.clear();
  Rotation restarted(rotation_.cursor());
  LargeObjects none;
  ASSERT_TRUE(restarted.cull_slice(cache, none, cache.share(kSize), kNow, kStampSeconds));
  // The one that was not culled any more has its turn now.
  EXPECT_EQ(cache.listed_.front(), 4U);
}

// A directory of a large cache holds tens of thousands: a daemon that is to end does not wait.
TEST_F(RotationTest, StopsInALargeDirectoryAndBeginsWithItAgain) {
  FakeFanOut cache(1);
  cache.add_many(10'000, 45);
  int asked = 0;
  cache.keep_going_ = [&] { return ++asked < 3; };
  EXPECT_TRUE(cull(cache, 100 * kSize)->stopped);
  EXPECT_EQ(rotation_.looked_at(), 512U);
  EXPECT_TRUE(cache.culled_.empty());
  EXPECT_EQ(rotation_.cursor(), 0U);
}

TEST_F(RotationTest, TheCursorOfAnotherCacheIsTakenToo) {
  FakeFanOut cache(256);
  cache.add_many(60'000, 46);
  Rotation rotation(256 * 7 + 250);
  ASSERT_TRUE(
      rotation.cull_slice(cache, large_, cache.share(cache.total_ / 100 * 3), kNow, kStampSeconds));
  EXPECT_EQ(cache.listed_.front(), 250U);
  EXPECT_EQ(cache.listed_[6], 0U);
  EXPECT_EQ(rotation.cursor(), 26U);
}

// What a round saw before its begin has come out of use, perhaps.
TEST_F(RotationTest, ARoundLooksAtAllFromItsBeginOn) {
  FakeFanOut cache(512);
  cache.add_many(40'000, 47);
  for (auto& directory : cache.objects_) {
    for (auto& [name, candidate] : directory) {
      cache.busy_.insert(name);
    }
  }
  for (int slices = 0; slices < 7; ++slices) {
    ASSERT_FALSE(cull(cache, cache.total_ / 100 * 3)->exhausted);
  }
  rotation_.begin_round();
  for (int slices = 0; slices < 7; ++slices) {
    EXPECT_FALSE(cull(cache, cache.total_ / 100 * 3)->exhausted) << slices;
  }
  EXPECT_TRUE(cull(cache, cache.total_ / 100 * 3)->exhausted);
}

// Then who culls can sleep until something is released.
TEST_F(RotationTest, SaysWhenAllIsInUseOrPinnedAndBeginsAnewAfterIt) {
  FakeFanOut cache(512);
  cache.add_many(40'000, 47);
  for (auto& directory : cache.objects_) {
    for (auto& [name, candidate] : directory) {
      if (candidate.stat.accessed.seconds % 2 == 0) {
        candidate.stat.mode = 01600;
      } else {
        cache.busy_.insert(name);
      }
    }
  }
  Outcome outcome;
  std::uint64_t in_use = 0;
  std::uint64_t pinned = 0;
  int slices = 0;
  while (!outcome.exhausted) {
    ASSERT_LE(++slices, 8);
    outcome = cull(cache, cache.total_ / 100 * 3).value();
    EXPECT_EQ(outcome.freed.files, 0U);
    in_use += outcome.in_use;
    pinned += outcome.pinned;
  }
  EXPECT_EQ(slices, 8);
  EXPECT_EQ(cache.listed_.size(), 512U);
  EXPECT_EQ(in_use, cache.busy_.size());
  EXPECT_EQ(pinned, 40'000 - cache.busy_.size());
  EXPECT_FALSE(cull(cache, cache.total_ / 100 * 3)->exhausted);  // one more round first
  cache.busy_.clear();
  EXPECT_GT(cull(cache, cache.total_ / 100 * 3)->freed.files, 500U);
}

TEST_F(RotationTest, AnErrorOfTheWholeEndsIt) {
  FakeFanOut cache(256);
  fill_small(cache, 100);
  cache.broken_ = true;
  EXPECT_EQ(cull(cache, kSize).error().code(), Errc::kCacheDead);
}

// A few huge old files must not stay while thousands of small ones pay for them.
class LargeObjectsTest : public RotationTest {
 protected:
  LargeObjectsTest() {
    for (int i = 0; i < 20'000; ++i) {
      cache_.add(static_cast<std::size_t>(i % 256), "small" + std::to_string(i), used(0, 900'000),
                 kSize);
    }
    for (int i = 0; i < 20; ++i) {
      cache_.add(static_cast<std::size_t>(i), "large" + std::to_string(i), used(0, 100'000 + i),
                 kLarge);
    }
  }

  static constexpr std::uint64_t kLarge = 100'000'000;

  void know_all() {
    for (int i = 0; i < 20; ++i) {
      large_.add(static_cast<std::size_t>(i), "large" + std::to_string(i), kLarge);
    }
  }

  FakeFanOut cache_{256};
};

TEST_F(LargeObjectsTest, PayTheirShare) {
  know_all();
  ASSERT_TRUE(cull(cache_, 150'000'000));
  EXPECT_EQ(cache_.culled_, (std::vector<std::string>{"large0", "large1"}));
  EXPECT_EQ(large_.all().size(), 18U);
  EXPECT_EQ(large_.bytes(), 18 * kLarge);
}

// One large object more than pays what is due of all of them: then the others have their turn.
TEST_F(LargeObjectsTest, DoNotPayAgainWhatTheyPaidAhead) {
  know_all();
  for (int i = 0; i < 20'000; ++i) {
    cache_.add(static_cast<std::size_t>(i % 256), "middle" + std::to_string(i), used(0, 800'000),
               100'000);
  }
  std::uint64_t freed = 0;
  for (int i = 0; i < 20; ++i) {
    freed += cull(cache_, 40'000'000)->freed.bytes;
  }
  const std::uint64_t of_large = (20 - large_.all().size()) * kLarge;
  EXPECT_GT(of_large, freed / 5 * 2);
  EXPECT_LT(of_large, freed / 5 * 3);
}

TEST_F(LargeObjectsTest, BecomeKnownInTheRotationAndAreForgottenWhenGone) {
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(cull(cache_, cache_.total_ / 100 * 3));
  }
  EXPECT_GT(large_.all().size(), 10U);
  const LargeObjects::Place place = large_.all().begin()->first;
  cache_.objects_[place.directory].erase(place.name);
  ASSERT_TRUE(cull(cache_, cache_.total_ / 100 * 3));
  EXPECT_FALSE(large_.all().contains(place));
}

TEST_F(LargeObjectsTest, AreSparedWhenPinnedOrInUse) {
  know_all();
  cache_.objects_[0]["large0"].stat.mode = 01600;
  cache_.hinted_ = {"large1"};
  cache_.busy_ = {"large2"};
  cache_.gone_ = {"large3"};
  ASSERT_TRUE(cull(cache_, 90'000'000));
  EXPECT_EQ(cache_.culled_, std::vector<std::string>{"large4"});
  EXPECT_EQ(large_.all().size(), 18U);
}

// So its memory is that of one sample, however large the cache is.
TEST_F(RotationTest, CullsASampleBeforeItLooksAtTheNext) {
  FakeFanOut cache(512);
  cache.add_many(50'000, 48);
  ASSERT_TRUE(cull(cache, cache.total_ / 100 * 3));
  EXPECT_EQ(cache.listed_.size(), 64U);
  EXPECT_EQ(cache.most_listed_, 10U);  // five samples of two volumes are judged as one
}

TEST_F(RotationTest, NothingToCullEndsAtOnce) {
  FakeFanOut cache(0);
  const Outcome outcome =
      rotation_.cull_slice(cache, large_, {100, 0, 50, 0}, kNow, kStampSeconds).value();
  EXPECT_EQ(outcome.freed.files, 0U);
  EXPECT_TRUE(outcome.exhausted);
}

}  // namespace
}  // namespace larder::culling
