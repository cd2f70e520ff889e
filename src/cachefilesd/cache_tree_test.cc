// The tree must show all objects and nothing that is none, and keep the numbers of its directories
// while volumes come and go.
#include "cachefilesd/cache_tree.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/error.h"
#include "cachefiles/layout.h"
#include "cachefilesd/daemon_fixture_test.h"
#include "cachefilesd/graveyard.h"
#include "culling/candidate.h"
#include "culling/fan_out.h"
#include "culling/large_objects.h"
#include "os/filesystem.h"
#include "testing/faulty_filesystem.h"
#include "testing/manual_clock.h"

namespace larder::cachefilesd {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

std::vector<culling::Candidate> everything(CacheTree& tree) {
  std::vector<culling::Candidate> all;
  for (std::size_t directory = 0; directory < tree.directories(); ++directory) {
    EXPECT_TRUE(tree.list(directory, [&](culling::Candidate&& candidate) {
      all.push_back(std::move(candidate));
      return true;
    }));
  }
  return all;
}

std::vector<std::string> names(CacheTree& tree) {
  std::vector<std::string> names;
  for (const culling::Candidate& candidate : everything(tree)) {
    names.push_back(candidate.name);
  }
  return names;
}

std::string fan_out_of_number(std::size_t directory) {
  return cachefiles::fan_out_directory(static_cast<std::uint8_t>(directory % culling::kSamples));
}

class CacheTreeTest : public ::testing::Test {
 protected:
  std::unique_ptr<CacheTree> open() {
    auto tree = CacheTree::open(*cache_.root, channel_, clock_, nullptr).value();
    EXPECT_FALSE(tree->find_volumes().value());
    return tree;
  }

  // The number of the directory that has it.
  static std::size_t number_of(CacheTree& tree, const std::string& name) {
    for (std::size_t directory = 0; directory < tree.directories(); ++directory) {
      if (tree.look_at(directory, name)) {
        return directory;
      }
    }
    ADD_FAILURE() << name << " is nowhere";
    return 0;
  }

  // An object with a map log.
  void add_large(const std::string& name, const std::string& volume) {
    cache_.add(name, 1, volume);
    (void)cache_.directory({"maps"});
    const auto tree = open();
    const auto maps = cache_.directory({"maps", volume, fan_out_of_number(number_of(*tree, name))});
    ASSERT_TRUE(maps->create_file(name, 0600));
  }

  static bool never() { return false; }

  // All that are listed, as what may be culled.
  static std::vector<culling::Placed> listed(CacheTree& tree, std::size_t directory) {
    std::vector<culling::Placed> objects;
    EXPECT_TRUE(tree.list(directory, [&](culling::Candidate&& candidate) {
      objects.push_back({directory, std::move(candidate)});
      return true;
    }));
    return objects;
  }

  void use(const std::string& name, std::size_t directory, std::int64_t when = 500) {
    const auto file = cache_.directory({"cache", "Ivolume", fan_out_of_number(directory)})
                          ->open_file(name, os::OpenMode::kReadWrite)
                          .value();
    ASSERT_TRUE(file->set_times(os::FileTime{when, 0}, std::nullopt));
  }

  FakeCache cache_;
  FakeChannel channel_{cache_};
  testing::ManualClock clock_;
};

TEST_F(CacheTreeTest, ShowsTheObjectsOfAllVolumes) {
  cache_.add("Da", 1);
  cache_.add("Eb", 2, "Ianother");
  cache_.add("Sc", 3);
  cache_.add("Td", 4);
  const auto tree = open();
  EXPECT_EQ(tree->directories(), 512U);
  EXPECT_THAT(names(*tree), UnorderedElementsAre("Da", "Eb", "Sc", "Td"));
  EXPECT_EQ(everything(*tree)[0].bytes, FakeCache::kBytes);
}

TEST_F(CacheTreeTest, WhatWasUsedSinceItWasListedStays) {
  cache_.add("Da", 1);
  const auto tree = open();
  const std::size_t directory = number_of(*tree, "Da");
  const auto before = tree->look_at(directory, "Da").value();
  use("Da", directory);
  const auto answers = tree->cull(std::vector{culling::Placed{directory, before}}).value();
  EXPECT_EQ(answers.at(0).error().code(), Errc::kBusy);
  EXPECT_THAT(cache_.asked, IsEmpty());
  const culling::Placed now{directory, tree->look_at(directory, "Da").value()};
  EXPECT_TRUE(tree->cull(std::vector{now}).value().at(0).has_value());
}

// An object that is culled at once is looked at once; whoever keeps the cache knows what is open.
TEST_F(CacheTreeTest, WhatWasListedJustNowIsNotLookedAtAgain) {
  cache_.add("Da", 1);
  const auto tree = open();
  const std::size_t directory = number_of(*tree, "Da");
  for (const auto& [seconds, asked] : {std::pair(2, 0U), std::pair(0, 1U)}) {
    const auto objects = listed(*tree, directory);
    use("Da", directory, 500 + seconds);
    clock_.advance(std::chrono::seconds(seconds));
    EXPECT_EQ(tree->cull(objects).value().at(0).has_value(), asked == 1);
    EXPECT_EQ(cache_.asked.size(), asked);
    ASSERT_TRUE(tree->find_volumes());
  }
}

TEST_F(CacheTreeTest, ShowsWhatWasListedAheadAsIfItWasListedNow) {
  cache_.add_many(300);
  const auto tree = open();
  std::vector<std::size_t> numbers;
  std::size_t before = 0;
  for (std::size_t directory = 0; directory < tree->directories(); ++directory) {
    numbers.push_back(directory);
    before += listed(*tree, directory).size();
  }
  tree->expect(numbers);
  EXPECT_THAT(names(*tree), SizeIs(before));
  EXPECT_THAT(names(*tree), SizeIs(before));  // nothing is left of it
}

// What is in a directory that was listed ahead is culled as what it was then.
TEST_F(CacheTreeTest, WhatWasListedAheadIsAsOldAsItsExpectation) {
  cache_.add("Da", 1);
  const auto tree = open();
  const std::size_t directory = number_of(*tree, "Da");
  tree->expect(std::vector{directory});
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // it is listed, or it is not
  use("Da", directory);
  clock_.advance(std::chrono::seconds(2));
  const auto objects = listed(*tree, directory);
  const bool ahead = objects.at(0).candidate.stat.accessed.seconds != 500;
  EXPECT_EQ(tree->cull(objects).value().at(0).has_value(), !ahead);
}

TEST_F(CacheTreeTest, AnswersInTheOrderInWhichItWasAsked) {
  cache_.add("Da", 1);
  cache_.add("Db", 1);
  cache_.in_use = {"Da"};
  const auto tree = open();
  const std::size_t directory = number_of(*tree, "Da");
  std::vector<culling::Placed> objects(3, {directory, {}});
  objects[0].candidate.name = "Dgone";
  objects[1].candidate = tree->look_at(directory, "Da").value();
  objects[2] = objects[1];
  objects[2].candidate.stat.inode = 77777;
  const auto answers = tree->cull(objects).value();
  EXPECT_EQ(answers.at(0).error().code(), Errc::kNotFound);
  EXPECT_EQ(answers.at(1).error().code(), Errc::kBusy);
  EXPECT_EQ(answers.at(2).error().code(), Errc::kBusy);
  EXPECT_THAT(cache_.asked, ElementsAre("Da"));
}

TEST_F(CacheTreeTest, AsksForThoseOfSeveralDirectoriesTogether) {
  cache_.add_many(20);
  const auto tree = open();
  std::vector<culling::Placed> objects;
  for (std::size_t directory = 0; directory < tree->directories(); ++directory) {
    ASSERT_TRUE(tree->list(directory, [&](culling::Candidate&& candidate) {
      objects.push_back({directory, std::move(candidate)});
      return true;
    }));
  }
  int calls = 0;
  cache_.on_cull = [&] { ++calls; };
  const auto answers = tree->cull(objects).value();
  EXPECT_EQ(answers.size(), 20U);
  EXPECT_TRUE(std::ranges::all_of(answers, [](const auto& answer) { return answer.has_value(); }));
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(cache_.objects.empty());
}

TEST_F(CacheTreeTest, LargeObjectsAreFoundByTheirMapLogs) {
  cache_.add("Dlarge", 1);
  cache_.add("Dsmall", 1);
  const auto tree = open();
  const std::size_t directory = number_of(*tree, "Dlarge");
  const auto maps = cache_.directory({"maps", "Ivolume", fan_out_of_number(directory)});
  ASSERT_TRUE(maps->create_file("Dlarge", 0600));
  ASSERT_TRUE(maps->create_file("Dorphan", 0600));
  const auto with_maps = open();
  culling::LargeObjects large;
  ASSERT_TRUE(with_maps->find_large(large, FakeCache::kBytes, never));
  ASSERT_EQ(large.all().size(), 1U);
  EXPECT_EQ(large.all().begin()->first.name, "Dlarge");
  EXPECT_EQ(large.all().begin()->first.directory, directory);
  culling::LargeObjects none;
  ASSERT_TRUE(open()->find_large(none, FakeCache::kBytes + 1, never));
  EXPECT_TRUE(none.all().empty());
}

TEST_F(CacheTreeTest, LargeObjectsAreFoundSomeAtATimeThoseOfLaterVolumesToo) {
  add_large("Da", "Ivolume");
  add_large("Db", "Ivolume");
  const auto tree = open();
  const std::set<std::size_t> numbers{number_of(*tree, "Da"), number_of(*tree, "Db")};
  ASSERT_EQ(numbers.size(), 2U);
  culling::LargeObjects large;
  const auto found = [&] {
    EXPECT_TRUE(tree->find_large(large, FakeCache::kBytes, [] { return true; }));
    return large.all().size();
  };
  for (std::size_t directory = 0; directory < culling::kSamples; ++directory) {
    const auto passed =
        std::ranges::count_if(numbers, [&](std::size_t number) { return number <= directory; });
    EXPECT_EQ(found(), static_cast<std::size_t>(passed));
  }
  EXPECT_EQ(found(), 2U);
  add_large("Dlater", "Ilater");
  EXPECT_FALSE(tree->find_volumes().value());
  ASSERT_TRUE(tree->find_large(large, FakeCache::kBytes, never));
  EXPECT_EQ(large.all().size(), 3U);
}

TEST_F(CacheTreeTest, AnEstimateIsAboutRight) {
  cache_.add_many(4000);
  const auto share = open()->estimate().value();
  EXPECT_GT(share.objects, 2000U);
  EXPECT_LT(share.objects, 8000U);
  EXPECT_EQ(share.used_bytes, share.objects * FakeCache::kBytes);
}

TEST_F(CacheTreeTest, NumbersStayUntilTooManyVolumesAreGone) {
  cache_.add("Da", 1, "Ia");
  const auto tree = open();
  cache_.add("Db", 1, "I0");
  ASSERT_FALSE(tree->find_volumes().value());
  EXPECT_LT(number_of(*tree, "Da"), 256U);
  EXPECT_GE(number_of(*tree, "Db"), 256U);
  const auto top = cache_.directory({"cache"});
  int renumbered = 0;
  for (int i = 0; i < 600; ++i) {
    const std::string name = "Igone" + std::to_string(i);
    ASSERT_TRUE(top->make_directory(name, 0700));
    renumbered += tree->find_volumes().value() ? 1 : 0;
    ASSERT_TRUE(top->remove_directory(name));
    renumbered += tree->find_volumes().value() ? 1 : 0;
  }
  EXPECT_EQ(renumbered, 2);
  EXPECT_LT(tree->directories(), 300U * 256U);
  EXPECT_THAT(names(*tree), UnorderedElementsAre("Da", "Db"));
}

TEST_F(CacheTreeTest, WhatMayNotBeEnteredIsPassedByAndADiskThatFailsIsTold) {
  cache_.add("Da", 1);
  testing::FaultyFilesystem faulty(cache_.filesystem);
  const auto root = faulty.open_root("/").value();
  const auto tree = CacheTree::open(*root, channel_, clock_, nullptr).value();
  ASSERT_TRUE(tree->find_volumes().has_value());
  faulty.faults().fail_all(testing::FileCall::kOpen, EACCES);
  EXPECT_THAT(names(*tree), IsEmpty());
  faulty.faults().fail_all(testing::FileCall::kOpen, EIO);
  EXPECT_EQ(tree->list(1, [](culling::Candidate&&) { return true; }).error().code(), Errc::kIo);
}

// On a real disk: links that lead elsewhere are not followed, whoever made them.
TEST(CacheTreeOnDiskTest, SymbolicLinksLeadNowhere) {
  std::string pattern = ::testing::TempDir() + "cache_tree_XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::filesystem::path top = std::filesystem::canonical(pattern);
  for (const char* const below : {"outside/@00", "cache/Ivolume/@00", "graveyard"}) {
    std::filesystem::create_directories(top / below);
  }
  for (const char* const file :
       {"outside/@00/Dprecious", "cache/Ivolume/@00/Da", "outside/Dprecious"}) {
    std::ofstream(top / file) << "x";
  }
  std::filesystem::create_directory_symlink(top / "outside", top / "cache/Ilink");
  std::filesystem::create_directory_symlink(top / "outside", top / "cache/Ivolume/@01");
  std::filesystem::create_symlink(top / "outside/Dprecious", top / "cache/Ivolume/@00/Dlink");
  FakeCache cache;
  FakeChannel channel(cache);
  const testing::ManualClock clock;
  const auto root = os::make_posix_filesystem()->open_root(top).value();
  const auto tree = CacheTree::open(*root, channel, clock, nullptr).value();
  ASSERT_TRUE(tree->find_volumes().has_value());
  EXPECT_THAT(names(*tree), ElementsAre("Da"));

  // Buried, it is the link that goes.
  Graveyard graveyard(*root, [] { return os::FileTime{}; });
  const auto tidy = CacheTree::open(*root, channel, clock, &graveyard).value();
  ASSERT_TRUE(tidy->find_volumes().has_value());
  EXPECT_THAT(names(*tidy), ElementsAre("Da"));
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(top / "cache/Ilink")));
  EXPECT_FALSE(
      std::filesystem::exists(std::filesystem::symlink_status(top / "cache/Ivolume/@00/Dlink")));
  EXPECT_TRUE(std::filesystem::exists(top / "outside/Dprecious"));
  EXPECT_TRUE(std::filesystem::exists(top / "outside/@00/Dprecious"));
  std::filesystem::remove_all(top);
}

}  // namespace
}  // namespace larder::cachefilesd
