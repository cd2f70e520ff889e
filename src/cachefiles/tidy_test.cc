// What has no business in a cache is buried, whoever put it there; what is ours never.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/key.h"
#include "cachefiles/layout.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"
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

// ---- Directories that hold nothing.

// What a real filesystem says of one that was removed while it is open.
TEST_F(TidyTest, ADirectoryThatWentIsMadeAgainForWhatIsBeingFilled) {
  for (int i = 0; i < kFiles; ++i) {
    ASSERT_TRUE(volume_->discard("file" + std::to_string(i)));
  }
  const auto content = content_of("file0", 2, kSize);
  auto object = volume_->open_object(describe("file0", 2, kSize)).value();
  ASSERT_TRUE(object->write(0, Bytes(content).first(65536)));
  clock_.advance(std::chrono::hours(1));
  run_until_idle();
  const fs::path volume = top_ / "place/cache/Ilarder,1,nfs,server,,%2fexport,0";
  EXPECT_TRUE(fs::is_empty(volume));
  ASSERT_TRUE(fill(*object, content));
  EXPECT_EQ(served_bytes(*object, content), kSize);
  object.reset();
  EXPECT_EQ(std::distance(fs::directory_iterator(volume), {}), 1);
  const auto other = content_of("file1", 2, kSize);
  ASSERT_TRUE(fill(*volume_->open_object(describe("file1", 2, kSize)).value(), other));
  object = volume_->open_object(describe("file0", 2, kSize)).value();
  EXPECT_EQ(served_bytes(*object, content), kSize);
  EXPECT_EQ(cache_->status().trouble, "");
}

class EmptyDirectoriesTest : public CacheOnFake {
 protected:
  static constexpr std::uint64_t kSmall = 5000;
  static constexpr std::uint64_t kLarge = 200'000;
  static constexpr const char* kVolume = "larder,1,nfs,server,,%2fexport,0";

  EmptyDirectoriesTest() { set_log_level(LogLevel::kError); }

  void TearDown() override {
    faulty_.faults().set_hook(nullptr);
    drop();
    set_log_level(LogLevel::kInfo);
  }

  void bind_faulty() {
    cache_ = bind_cache(faulty_.open_root("/").value(), faulty_, options_, clock_).value();
    volume_ = cache_->open_volume(kVolume).value();
  }

  void run_until_idle() {
    while (cache_->run_maintenance() < std::chrono::seconds(1)) {
    }
  }

  void tidy() {
    clock_.advance(std::chrono::hours(1));
    run_until_idle();
  }

  std::uint64_t used() { return cache_->status().used_bytes; }

  // As a count of all directories finds it.
  std::uint64_t really_used() {
    drop();
    bind();
    run_until_idle();
    EXPECT_TRUE(cache_->status().objects_exact);
    return used();
  }

  std::size_t names_in(const std::string& top) {
    std::size_t names = 0;
    EXPECT_TRUE(filesystem_.open_root("/").value()->open_directory(top).value()->list(
        [&](const os::DirectoryEntry&) {
          ++names;
          return true;
        }));
    return names;
  }

  // Small ones and large ones.
  void keep_many(const std::string& prefix) {
    for (int i = 0; i < 40; ++i) {
      keep(prefix + std::to_string(i), 1, i % 4 == 0 ? kLarge : kSmall);
    }
  }

  void discard_many(const std::string& prefix) {
    for (int i = 0; i < 40; ++i) {
      ASSERT_TRUE(volume_->discard(prefix + std::to_string(i)));
    }
  }

  // So that one directory is there, and holds nothing.
  void leave_empty_directories() {
    keep("gone", 1, kLarge);
    ASSERT_TRUE(volume_->discard("gone"));
  }

  // Of a volume that nobody uses. `hook` sees each call.
  void tidy_with(const std::function<void(testing::FileCall)>& hook) {
    leave_empty_directories();
    volume_.reset();
    run_until_idle();
    clock_.advance(std::chrono::hours(1));
    faulty_.faults().set_hook([&](testing::FileCall call, std::uint64_t) {
      hook(call);
      return 0;
    });
    run_until_idle();
    faulty_.faults().set_hook(nullptr);
  }

  testing::FaultyFilesystem faulty_{filesystem_};
};

TEST_F(EmptyDirectoriesTest, GoEachHourWithTheirVolumes) {
  bind();
  const std::uint64_t fixed = used();
  for (int i = 0; i < 3; ++i) {
    volume_ = cache_->open_volume("larder,1,nfs,server,,%2f" + std::to_string(i) + ",0").value();
    keep_many("file");
    discard_many("file");
  }
  volume_.reset();
  run_until_idle();
  EXPECT_GT(used(), fixed);
  EXPECT_EQ(names_in("cache"), 3U);
  tidy();
  EXPECT_EQ(used(), fixed);
  EXPECT_EQ(names_in("cache"), 0U);
  EXPECT_EQ(names_in("maps"), 0U);
  EXPECT_EQ(cache_->status().damaged_objects, 0U);

  volume_ = cache_->open_volume(kVolume).value();
  keep_many("new");
  EXPECT_EQ(served("new0", 1, kLarge), kLarge);
  EXPECT_EQ(served("new1", 1, kSmall), kSmall);
  const std::uint64_t known = used();
  EXPECT_EQ(really_used(), known);
}

TEST_F(EmptyDirectoriesTest, StayWhereSomethingIsKeptOrTheVolumeIsUsed) {
  bind();
  keep_many("file");
  const std::uint64_t before = used();
  tidy();
  EXPECT_EQ(used(), before);
  EXPECT_EQ(served("file0", 1, kLarge), kLarge);
  EXPECT_EQ(served("file1", 1, kSmall), kSmall);
  discard_many("file");
  tidy();
  EXPECT_EQ(names_in("cache"), 1U) << "it is made again in a moment";
  volume_.reset();
  tidy();
  EXPECT_EQ(names_in("cache"), 0U);
}

TEST_F(EmptyDirectoriesTest, OfAnEarlierLifeGoToo) {
  bind();
  const std::uint64_t fixed = used();
  keep_many("file");
  discard_many("file");
  withdraw();
  bind();
  volume_.reset();
  tidy();
  EXPECT_EQ(used(), fixed);
  EXPECT_EQ(names_in("cache"), 0U);
}

// Or a cache would shrink with each restart.
TEST_F(EmptyDirectoriesTest, ADirectoryThatIsUsedAgainIsNotCountedAgain) {
  bind();
  keep_many("file");
  withdraw();
  bind();
  keep("file0", 2, kLarge);
  keep("file1", 2, kSmall);
  const std::uint64_t known = used();
  EXPECT_EQ(really_used(), known);
}

TEST_F(EmptyDirectoriesTest, WhatIsBeingFilledIsKept) {
  bind();
  const std::uint64_t fixed = used();
  const auto small = content_of("small", 1, 2 * kSmall);
  const auto large = content_of("large", 1, kLarge);
  const auto slow = open("large", 1, kLarge);
  const auto other = open("small", 1, 2 * kSmall);
  ASSERT_TRUE(slow->write(0, Bytes(large).first(65536)));
  tidy();
  ASSERT_TRUE(slow->write(65536, Bytes(large).subspan(65536)));
  ASSERT_TRUE(slow->mark_complete());
  ASSERT_TRUE(fill(*other, small));
  EXPECT_EQ(served_bytes(*slow, large), kLarge);
  EXPECT_EQ(cache_->status().trouble, "");
  EXPECT_GT(used(), fixed + kLarge);
  EXPECT_GT(names_in("maps"), 0U);
}

// Just before tidy removes a directory of fan-out or the volume's, and just after.
TEST_F(EmptyDirectoriesTest, WhatIsKeptWhileTidyRunsIsThereAfterIt) {
  std::vector<int> removals;
  int calls = 0;
  bind_faulty();
  tidy_with([&](testing::FileCall call) {
    ++calls;
    if (call == testing::FileCall::kName) {
      removals.push_back(calls);
    }
  });
  ASSERT_EQ(removals.size(), 4U);
  withdraw();
  for (const int removal : removals) {
    for (int k = removal - 6; k < removal + 6; ++k) {
      SCOPED_TRACE(k);
      bind_faulty();
      calls = 0;
      tidy_with([&](testing::FileCall) {
        if (++calls == k) {
          volume_ = cache_->open_volume(kVolume).value();
          keep("gone", 2, kLarge);
        }
      });
      ASSERT_TRUE(volume_);
      EXPECT_EQ(served("gone", 2, kLarge), kLarge);
      keep("gone", 3, kLarge);
      EXPECT_EQ(served("gone", 3, kLarge), kLarge);
      EXPECT_EQ(served("gone", 2, kLarge), 0U);
      const std::uint64_t known = used();
      ASSERT_EQ(really_used(), known);
      ASSERT_TRUE(volume_->discard("gone"));
      withdraw();
      ASSERT_FALSE(HasFailure());
    }
  }
}

// And the other way round.
TEST_F(EmptyDirectoriesTest, TidyMayRunWhileSomethingIsKept) {
  for (const std::uint64_t size : {kSmall, kLarge}) {
    for (int k = 0;; ++k) {
      SCOPED_TRACE(k);
      bind_faulty();
      leave_empty_directories();
      clock_.advance(std::chrono::hours(1) - std::chrono::seconds(1));
      run_until_idle();  // no epoch is due in a moment: it would wait for who keeps something
      int calls = 0;
      faulty_.faults().set_hook([&](testing::FileCall, std::uint64_t) {
        if (calls++ == k) {
          clock_.advance(std::chrono::seconds(1));
          run_until_idle();
        }
        return 0;
      });
      keep("gone", 2, size);
      faulty_.faults().set_hook(nullptr);
      const bool over = calls <= k;
      EXPECT_EQ(served("gone", 2, size), size);
      EXPECT_EQ(cache_->status().trouble, "");
      const std::uint64_t known = used();
      ASSERT_EQ(really_used(), known);
      ASSERT_TRUE(volume_->discard("gone"));
      withdraw();
      ASSERT_FALSE(HasFailure());
      if (over) {
        EXPECT_GT(k, 8);
        break;
      }
    }
  }
}

// What is kept open is not the one of the name any more.
TEST_F(EmptyDirectoriesTest, ADirectoryThatSomebodyElseHasExchangedIsNotMistaken) {
  bind();
  keep("file", 1, kSmall);
  const auto volume = volume_directory();
  std::string name;
  ASSERT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
    name = entry.name;
    return true;
  }));
  ASSERT_TRUE(volume->make_directory("other", 0700));
  const auto before = volume->open_directory(name).value();
  ASSERT_TRUE(before->rename("Dfile", *volume->open_directory("other").value(), "Dfile"));
  ASSERT_TRUE(volume->remove_directory(name));
  ASSERT_TRUE(volume->rename("other", *volume, name));
  EXPECT_EQ(served("file", 1, kSmall), kSmall);
  ASSERT_TRUE(volume_->discard("file"));
  EXPECT_FALSE(volume->open_directory(name).value()->stat("Dfile"));
  EXPECT_EQ(served("file", 1, kSmall), 0U);
}

// Each of them knows what is kept under its own names, which share a directory with the others'.
class ManyKeepersTest : public EmptyDirectoriesTest {
 protected:
  static constexpr std::size_t kKeepers = 4;
  static constexpr std::size_t kNames = 3;  // of each

  ManyKeepersTest() {
    for (int i = 0; keys_.size() < kKeepers * kNames; ++i) {
      std::string key = "file" + std::to_string(i);
      if (hash_of_key(hash_of_volume(kVolume), key) % kFanOut == 7) {
        keys_.push_back(std::move(key));
      }
    }
  }

  void keep_and_discard(std::size_t keeper) {
    for (std::uint64_t version = 1; version <= 300; ++version) {
      const std::string& key = keys_[keeper * kNames + version % kNames];
      const std::uint64_t size = version % 2 == 0 ? kLarge : kSmall;
      const auto right = content_of(key, version, size);
      EXPECT_TRUE(fill(*volume_->open_object(describe(key, version, size)).value(), right));
      EXPECT_EQ(served_bytes(*volume_->open_object(describe(key, version, size)).value(), right),
                size);
      ASSERT_TRUE(volume_->discard(key));
      EXPECT_EQ(served_bytes(*volume_->open_object(describe(key, version, size)).value(), right),
                0U);
    }
    ++ended_;
  }

  std::vector<std::string> keys_;  // of one directory
  std::atomic<std::size_t> ended_{0};
};

TEST_F(ManyKeepersTest, FindWhatTheyKeptAndNothingElseWhileDirectoriesGo) {
  bind();
  std::vector<std::thread> keepers;
  for (std::size_t i = 0; i < kKeepers; ++i) {
    keepers.emplace_back([this, i] { keep_and_discard(i); });
  }
  while (ended_ < kKeepers && !HasFailure()) {
    clock_.advance(std::chrono::hours(1));
    (void)cache_->run_maintenance();
  }
  for (std::thread& keeper : keepers) {
    keeper.join();
  }
  EXPECT_EQ(cache_->status().trouble, "");
  EXPECT_EQ(cache_->status().damaged_objects, 0U);
  const std::uint64_t known = used();
  EXPECT_EQ(really_used(), known);
}

}  // namespace
}  // namespace larder::cachefiles
