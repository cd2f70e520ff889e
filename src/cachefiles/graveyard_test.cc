// What is buried goes, whatever it is made of, and takes nothing else with it.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "os/filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefiles {
namespace {

class GraveyardTest : public CacheOnFake {
 protected:
  GraveyardTest() { set_log_level(LogLevel::kError); }

  std::unique_ptr<os::Directory> graveyard() {
    return filesystem_.open_root("/").value()->open_directory("graveyard").value();
  }

  std::size_t graves() {
    std::size_t count = 0;
    EXPECT_TRUE(graveyard()->list([&](const os::DirectoryEntry&) {
      ++count;
      return true;
    }));
    return count;
  }

  // Maintenance has so much to do before it rests.
  int runs_until_idle() {
    int runs = 1;
    while (cache_->run_maintenance() < std::chrono::seconds(1)) {
      ++runs;
    }
    return runs;
  }
};

TEST_F(GraveyardTest, DeepAndWideGravesAreRemovedInBoundedSteps) {
  bind();
  withdraw();
  auto at = graveyard();
  for (int depth = 0; depth < 500; ++depth) {
    ASSERT_TRUE(at->make_directory("deeper", 0700));
    at = at->open_directory("deeper").value();
  }
  ASSERT_TRUE(graveyard()->make_directory("wide", 0700));
  const auto wide = graveyard()->open_directory("wide").value();
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(wide->create_file("file" + std::to_string(i), 0600));
  }
  ASSERT_TRUE(graveyard()->create_file("a file", 0600));
  bind();
  const std::uint64_t before = filesystem_.mutating_calls();
  (void)cache_->run_maintenance();
  EXPECT_LT(filesystem_.mutating_calls() - before, 300U);
  EXPECT_GT(graves(), 0U);
  EXPECT_GT(runs_until_idle(), 10);
  EXPECT_EQ(graves(), 0U);
  keep("works", 1, 5000);
}

// It takes many steps, and nothing is buried in this life.
TEST_F(GraveyardTest, AWideGraveOfAnEarlierLifeGoesToo) {
  bind();
  withdraw();
  ASSERT_TRUE(graveyard()->make_directory("wide", 0700));
  const auto wide = graveyard()->open_directory("wide").value();
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(wide->create_file("file" + std::to_string(i), 0600));
  }
  bind();
  EXPECT_GT(runs_until_idle(), 10);
  EXPECT_EQ(graves(), 0U);
  EXPECT_EQ(runs_until_idle(), 1);
}

// The engine cares by itself here: a cull comes before the dead, however many they are.
TEST_F(GraveyardTest, AWideGraveHoldsUpNoCull) {
  bind();
  for (int i = 0; i < 40; ++i) {
    keep("file" + std::to_string(i), 1, kMega);
  }
  ASSERT_TRUE(graveyard()->make_directory("wide", 0700));
  const auto wide = graveyard()->open_directory("wide").value();
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(wide->create_file("file" + std::to_string(i), 0600));
  }
  (void)cache_->run_maintenance();  // has begun with it
  ASSERT_TRUE(cache_->set_limits({30 * kMega, {3, 2, 1}, {3, 2, 1}}));
  (void)cache_->run_maintenance();
  EXPECT_GE(cache_->status().culled_objects, 10U);
  EXPECT_EQ(graves(), 1U);
  EXPECT_GT(runs_until_idle(), 10);
  EXPECT_EQ(graves(), 0U);
}

// They hold the room that a cull is to make: what is used must not go for it.
class FullOfGravesTest : public GraveyardTest {
 protected:
  void bury(const std::string& name, std::uint64_t bytes) {
    ASSERT_TRUE(graveyard()->make_directory(name, 0700));
    const auto file = graveyard()->open_directory(name).value()->create_file("large", 0600).value();
    const std::vector<std::byte> piece(kMega, std::byte{1});
    for (std::uint64_t at = 0; at < bytes; at += piece.size()) {
      ASSERT_TRUE(file->write_at(at, piece));
    }
  }

  void keep_many(int count) {
    for (int i = 0; i < count; ++i) {
      keep("file" + std::to_string(i), 1, kMega);
    }
  }
};

TEST_F(FullOfGravesTest, GravesGoBeforeWhatIsUsed) {
  bind();
  keep_many(40);
  bury("x1", 600 * kMega);
  filesystem_.leave_free(6 * kMega);
  (void)runs_until_idle();
  EXPECT_EQ(graves(), 0U);
  EXPECT_FALSE(cache_->status().culling);
  EXPECT_EQ(cache_->status().objects, 40U);
  EXPECT_EQ(cache_->status().culled_objects, 0U);
}

// Nothing can be culled, and all that a cull waits for is in graves that take many steps.
TEST_F(FullOfGravesTest, AndWhereACullFindsNothing) {
  bind();
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(graveyard()->make_directory("w" + std::to_string(i), 0700));
  }
  bury("x1", 60 * kMega);
  filesystem_.leave_free(kMega);
  clock_.advance(std::chrono::hours(1));
  (void)runs_until_idle();
  EXPECT_EQ(graves(), 0U);
  EXPECT_FALSE(cache_->status().culling);
  keep("works", 1, 5000);
}

TEST_F(GraveyardTest, WhatIsBuriedLaterGoesToo) {
  bind();
  keep("a", 1, 5000);
  EXPECT_EQ(runs_until_idle(), 1);
  volume_.reset();
  const auto cache = filesystem_.open_root("/").value()->open_directory("cache").value();
  const auto volume = cache->open_directory("Ilarder,1,nfs,server,,%2fexport,0").value();
  ASSERT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
    const auto directory = volume->open_directory(entry.name).value();
    if (directory->unlink("Da")) {
      EXPECT_TRUE(directory->make_directory("Da", 0700));
      EXPECT_TRUE(directory->open_directory("Da").value()->make_directory("inside", 0700));
    }
    return true;
  }));
  volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
  EXPECT_EQ(served("a", 1, 5000), 0U);
  EXPECT_EQ(graves(), 1U);
  (void)runs_until_idle();
  EXPECT_EQ(graves(), 0U);
}

// What cannot be removed stays, costs no more work, and the cache does not mind.
TEST_F(GraveyardTest, ErrorsAreTolerated) {
  for (const int error_number : {EACCES, EBUSY, EIO}) {
    bind();
    withdraw();
    ASSERT_TRUE(graveyard()->make_directory("a", 0700));
    ASSERT_TRUE(graveyard()->open_directory("a").value()->create_file("inside", 0600));
    ASSERT_TRUE(graveyard()->make_directory("b", 0700));
    testing::FaultyFilesystem faulty(filesystem_);
    cache_ = bind_cache(faulty.open_root("/").value(), faulty, options_, clock_).value();
    faulty.faults().fail_all(testing::FileCall::kName, error_number);
    (void)runs_until_idle();
    faulty.faults().set_hook(nullptr);
    EXPECT_EQ(runs_until_idle(), 1);
    EXPECT_EQ(graves(), 2U);
    EXPECT_TRUE(cache_->usable());
    clock_.advance(std::chrono::minutes(1));  // it tries again now and then
    (void)runs_until_idle();
    EXPECT_EQ(graves(), 0U);
    cache_.reset();
  }
}

// On a real filesystem: nothing outside is touched through symbolic links.
TEST(GraveyardOnDiskTest, LinksAreNotFollowed) {
  set_log_level(LogLevel::kError);
  std::string path = ::testing::TempDir() + "larder-graveyard-XXXXXX";
  ASSERT_NE(::mkdtemp(path.data()), nullptr);
  namespace fs = std::filesystem;
  fs::create_directories(path + "/outside/kept");
  std::ofstream(path + "/outside/kept/precious") << "precious";
  fs::create_directories(path + "/cache");
  const auto filesystem = os::make_posix_filesystem();
  const SteadyClock clock;
  CacheOptions options;
  options.path_for_messages = path;
  options.limits.size_bytes = std::uint64_t{64} << 20U;
  const auto bound = [&] {
    return bind_cache(filesystem->open_root(path + "/cache").value(), *filesystem, options, clock)
        .value();
  };
  bound().reset();
  fs::create_directories(path + "/cache/graveyard/x1/sub");
  fs::create_symlink("../../../outside", path + "/cache/graveyard/x1/link");
  fs::create_symlink(path + "/outside/kept/precious", path + "/cache/graveyard/x1/sub/file");
  fs::create_symlink(path + "/outside", path + "/cache/graveyard/x2");
  auto cache = bound();
  for (int i = 0; i < 20; ++i) {
    (void)cache->run_maintenance();
  }
  EXPECT_TRUE(fs::is_empty(path + "/cache/graveyard"));
  EXPECT_TRUE(fs::exists(path + "/outside/kept/precious"));
  cache.reset();
  fs::remove_all(path);
}

}  // namespace
}  // namespace larder::cachefiles
