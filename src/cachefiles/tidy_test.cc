// What has no business in a cache is buried, whoever put it there; what is ours never.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/manual_clock.h"

namespace larder::cachefiles {
namespace {

namespace fs = std::filesystem;

// A real directory: with symbolic links and pipes.
class TidyTest : public ::testing::Test {
 protected:
  TidyTest() {
    set_log_level(LogLevel::kError);
    std::string path = ::testing::TempDir() + "larder-tidy-XXXXXX";
    EXPECT_NE(::mkdtemp(path.data()), nullptr);
    top_ = path;
    fs::create_directories(top_ / "outside/kept");
    std::ofstream(top_ / "outside/kept/precious") << "precious";
    fs::create_directories(top_ / "place");
    options_.path_for_messages = top_;
    options_.limits = {64 * kMega, {3, 2, 1}, {3, 2, 1}};
    cache_ =
        bind_cache(filesystem_->open_root(top_ / "place").value(), *filesystem_, options_, clock_)
            .value();
    volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
    for (int i = 0; i < kFiles; ++i) {
      const auto object = open("file" + std::to_string(i));
      EXPECT_TRUE(fill(*object, content_of("file" + std::to_string(i), 1, kSize)));
    }
  }

  void TearDown() override {
    volume_.reset();
    cache_.reset();
    set_log_level(LogLevel::kInfo);
    fs::remove_all(top_);
  }

  std::unique_ptr<fscache::BackendObject> open(const std::string& key) {
    return volume_->open_object(describe(key, 1, kSize)).value();
  }

  void expect_all_served() {
    for (int i = 0; i < kFiles; ++i) {
      const std::string key = "file" + std::to_string(i);
      EXPECT_EQ(served_bytes(*open(key), content_of(key, 1, kSize)), kSize) << key;
    }
  }

  // One of each kind at every level.
  std::vector<fs::path> make_junk(const fs::path& tree) {
    const fs::path volume = top_ / "place" / tree / "Ilarder,1,nfs,server,,%2fexport,0";
    fs::path fan_out;
    for (const fs::directory_entry& entry : fs::directory_iterator(volume)) {
      fan_out = entry.path();
    }
    std::vector<fs::path> junk;
    for (const fs::path& at : {volume.parent_path(), volume, fan_out}) {
      for (const char* const name : {"junk", "I", "@zz", "Ilink", "@f", "Dlink", "Tpipe"}) {
        junk.push_back(at / name);
      }
      fs::create_directories(at / "junk/inside");
      std::ofstream(at / "I") << "file";
      std::ofstream(at / "@zz") << "file";
      fs::create_symlink(top_ / "outside", at / "Ilink");
      fs::create_symlink(top_ / "outside/kept/precious", at / "@f");
      fs::create_symlink(top_ / "outside", at / "Dlink");
      EXPECT_EQ(::mkfifo((at / "Tpipe").c_str(), 0600), 0);
    }
    fs::create_directories(fan_out / "Edirectory/inside");
    junk.push_back(fan_out / "Edirectory");
    return junk;
  }

  void run_until_idle() {
    while (cache_->run_maintenance() < std::chrono::seconds(1)) {
    }
  }

  void expect_gone(const std::vector<fs::path>& junk) {
    for (const fs::path& path : junk) {
      EXPECT_FALSE(fs::exists(fs::symlink_status(path))) << path;
    }
    EXPECT_TRUE(fs::exists(top_ / "outside/kept/precious"));
    EXPECT_EQ(cache_->status().trouble, "");
    EXPECT_EQ(cache_->status().objects, static_cast<std::uint64_t>(kFiles));
  }

  static constexpr int kFiles = 10;
  static constexpr std::uint64_t kSize = kMega;

  fs::path top_;
  testing::ManualClock clock_;
  std::unique_ptr<os::Filesystem> filesystem_ = os::make_posix_filesystem();
  CacheOptions options_;
  std::unique_ptr<DirectoryCache> cache_;
  std::unique_ptr<fscache::BackendVolume> volume_;
};

TEST_F(TidyTest, BuriesTheUnexpectedAtEveryLevelEachHour) {
  std::vector<fs::path> junk = make_junk("cache");
  std::ranges::move(make_junk("maps"), std::back_inserter(junk));
  run_until_idle();
  EXPECT_TRUE(fs::exists(junk.front()));
  clock_.advance(std::chrono::hours(1));
  run_until_idle();
  expect_gone(junk);
  EXPECT_TRUE(fs::is_empty(top_ / "place/graveyard"));
  expect_all_served();
}

// With a caretaker, too: he culls what has an object's name, and nothing else.
TEST_F(TidyTest, LooksWhenRoomIsShortWhoeverCares) {
  cache_->set_caretaker([] {});
  const std::vector<fs::path> junk = make_junk("cache");
  ASSERT_TRUE(cache_->set_limits({5 * kMega, {3, 2, 1}, {3, 2, 1}}));
  run_until_idle();
  expect_gone(junk);
  EXPECT_EQ(cache_->care_state()->buried, 4U) << "directories";
  expect_all_served();
}

// Somebody may be about to put a file there.
TEST_F(TidyTest, WhatHasTheNameOfAnOpenObjectWaits) {
  auto held = open("file0");
  fs::path place;
  for (const auto& entry : fs::recursive_directory_iterator(top_ / "place/cache")) {
    place = entry.path().filename() == "Dfile0" ? entry.path() : place;
  }
  ASSERT_FALSE(place.empty());
  fs::remove(place);
  fs::create_directory(place);
  clock_.advance(std::chrono::hours(1));
  run_until_idle();
  EXPECT_TRUE(fs::is_directory(place));
  EXPECT_EQ(served_bytes(*held, content_of("file0", 1, kSize)), kSize);
  held.reset();
  clock_.advance(std::chrono::hours(1));
  run_until_idle();
  EXPECT_FALSE(fs::exists(place));
}

// What a stranger puts there under an object's name takes room, and that counts.
TEST_F(TidyTest, WhatItFindsLetsAllBeCountedAnew) {
  const fs::path volume = top_ / "place/cache/Istranger";
  fs::create_directories(volume / "@00");
  std::ofstream(volume / "@00/Dforeign") << std::string(5 * kMega, 'x');
  std::ofstream(volume / "junk") << std::string(5 * kMega, 'x');
  const std::uint64_t before = cache_->status().used_bytes;
  clock_.advance(std::chrono::hours(1));
  run_until_idle();
  EXPECT_FALSE(fs::exists(volume / "junk"));
  EXPECT_GE(cache_->status().used_bytes, before + 5 * kMega);
  EXPECT_EQ(cache_->status().objects, static_cast<std::uint64_t>(kFiles) + 1);
  ASSERT_TRUE(cache_->set_limits({5 * kMega, {3, 2, 1}, {3, 2, 1}}));
  run_until_idle();
  EXPECT_LE(cache_->status().used_bytes, 5 * kMega);
}

}  // namespace
}  // namespace larder::cachefiles
