#include "culling/rotation.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <set>
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
    objects_[directory][name] = {name, stat, bytes};
    total_ += bytes;
    ++count_;
  }

  std::size_t directories() override { return objects_.size(); }

  Result<> list(std::size_t directory, const std::function<void(Candidate&&)>& visit) override {
    ++listed_;
    for (const auto& [name, candidate] : objects_[directory]) {
      visit(Candidate(candidate));
    }
    return {};
  }

  bool in_use(std::size_t, std::string_view name) override {
    return in_use_.contains(std::string(name));
  }

  Result<Freed> cull(std::size_t directory, const Candidate& object) override {
    if (in_use_.contains(object.name)) {
      return fail(Errc::kBusy, object.name);
    }
    objects_[directory].erase(object.name);
    culled_.push_back(object.name);
    total_ -= object.bytes;
    --count_;
    return Freed{object.bytes, 1};
  }

  Result<Candidate> look_at(std::size_t directory, std::string_view name) override {
    const auto found = objects_[directory].find(std::string(name));
    if (found == objects_[directory].end()) {
      return fail(Errc::kNotFound, std::string(name));
    }
    return found->second;
  }

  [[nodiscard]] Share share(std::uint64_t free_bytes) const {
    return {total_, count_, free_bytes, 0};
  }

  std::vector<std::map<std::string, Candidate>> objects_;
  std::set<std::string> in_use_;
  std::vector<std::string> culled_;
  std::uint64_t total_ = 0;
  std::uint64_t count_ = 0;
  std::uint64_t listed_ = 0;
};

TEST(RotationTest, ASliceIsAnEighthUnlessThatCostADirectoryMoreThanAQuarter) {
  const std::uint64_t million = 1'000'000;
  EXPECT_EQ(slice_of(256, {100 * million, million, 3 * million, 0}), 32U);
  EXPECT_EQ(slice_of(256, {100 * million, million, 10 * million, 0}), 103U);
  EXPECT_EQ(slice_of(256, {100 * million, million, 90 * million, 0}), 256U);
  EXPECT_EQ(slice_of(256, {100 * million, 100, 3 * million, 0}), 256U);
  EXPECT_EQ(slice_of(0, {0, 0, 0, 0}), 0U);
}

TEST(RotationTest, TheOldestOfASmallCacheGoFirstPinnedAndUsedNever) {
  FakeFanOut cache(256);
  for (int i = 0; i < 200; ++i) {
    os::FileStat stat = used(0, 10'000 + i);
    stat.mode = i == 3 ? 01600 : 0600;
    cache.add(static_cast<std::size_t>(i * 37 % 256), "object" + std::to_string(i), stat, 4096);
  }
  cache.in_use_.insert("object5");
  LargeObjects large;
  Rotation rotation(0);
  ASSERT_TRUE(rotation.cull_slice(cache, large, cache.share(10 * 4096), kNow, kStampSeconds));
  const std::vector<std::string> expected{"object0", "object1", "object2", "object4",  "object6",
                                          "object7", "object8", "object9", "object10", "object11"};
  EXPECT_EQ(cache.culled_, expected);
}

// Three per cent of many objects: an eighth of them is looked at, and what goes is old.
TEST(RotationTest, ASliceLooksAtAnEighthAndTakesOldOnes) {
  std::mt19937_64 random(42);
  FakeFanOut cache(256);
  constexpr std::uint64_t kObjects = 60'000;
  for (std::uint64_t i = 0; i < kObjects; ++i) {
    cache.add(random() % 256, "o" + std::to_string(i),
              used(0, static_cast<std::int64_t>(random() % 1'000'000)), 4096);
  }
  LargeObjects large;
  Rotation rotation(17);
  const std::uint64_t due = kObjects * 4096 / 100 * 3;
  const Freed freed =
      rotation.cull_slice(cache, large, cache.share(due), kNow, kStampSeconds).value();
  EXPECT_GE(freed.bytes, due);
  EXPECT_LE(freed.bytes, due + std::uint64_t{4096} * 64);
  EXPECT_EQ(cache.listed_, 32U);
  EXPECT_LT(rotation.looked_at(), kObjects / 7);
  EXPECT_GT(rotation.oldest_seconds(), 700'000);
  for (const auto& directory : cache.objects_) {
    EXPECT_GT(directory.size(), kObjects / 256 / 2);
  }
}

// A few huge old files must not stay while thousands of small ones pay for them.
TEST(RotationTest, LargeObjectsPayTheirShare) {
  FakeFanOut cache(256);
  for (int i = 0; i < 20'000; ++i) {
    cache.add(static_cast<std::size_t>(i % 256), "small" + std::to_string(i), used(0, 900'000),
              4096);
  }
  LargeObjects large;
  for (int i = 0; i < 20; ++i) {
    const std::string name = "large" + std::to_string(i);
    cache.add(static_cast<std::size_t>(i), name, used(0, 100'000 + i), 100'000'000);
    large.add(static_cast<std::size_t>(i), name, 100'000'000);
  }
  Rotation rotation(0);
  ASSERT_TRUE(rotation.cull_slice(cache, large, cache.share(150'000'000), kNow, kStampSeconds));
  EXPECT_EQ(cache.culled_, (std::vector<std::string>{"large0", "large1"}));
  EXPECT_EQ(large.all().size(), 18U);
}

TEST(RotationTest, NothingToCullEndsAtOnce) {
  FakeFanOut cache(0);
  LargeObjects large;
  Rotation rotation(5);
  const auto freed = rotation.cull_slice(cache, large, {100, 0, 50, 0}, kNow, kStampSeconds);
  EXPECT_EQ(freed->files, 0U);
}

}  // namespace
}  // namespace larder::culling
