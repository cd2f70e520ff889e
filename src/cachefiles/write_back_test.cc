// When a complete file may be registered with the kernel, which reads it past our checksums: once
// the disk has taken it, and not before.
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kSize = 300'001;
// A file in memory has no descriptor: everything before that went well.
constexpr Errc kGranted = Errc::kNotSupported;

class WriteBackTest : public CacheOnFake {
 protected:
  WriteBackTest() { set_log_level(LogLevel::kError); }

  Errc asked(const std::string& key, std::uint64_t size = kSize) {
    return open(key, 1, size)->open_for_passthrough().error().code();
  }
};

TEST_F(WriteBackTest, ACompleteFileIsGrantedOnceTheDiskHasIt) {
  bind();
  bool woken = false;
  cache_->set_maintenance_wake([&] { woken = true; });
  {
    const auto object = open("a", 1, kSize);
    ASSERT_TRUE(fill(*object, content_of("a", 1, kSize)));
    EXPECT_TRUE(woken);
    EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kBusy);
    (void)cache_->run_maintenance();  // long before the epoch is due
    EXPECT_EQ(object->open_for_passthrough().error().code(), kGranted);
  }
  EXPECT_EQ(asked("a"), kGranted);
  close_epoch();
  EXPECT_EQ(asked("a"), kGranted);
  drop();
  bind();
  EXPECT_EQ(asked("a"), kGranted);
}

TEST_F(WriteBackTest, AFileIsWrittenAfterItsReaderHasGone) {
  bind();
  keep("a", 1, kSize);
  EXPECT_EQ(asked("a"), Errc::kBusy);
  (void)cache_->run_maintenance();
  EXPECT_EQ(asked("a"), kGranted);
}

TEST_F(WriteBackTest, ALargeFileTakesSeveralSteps) {
  constexpr std::uint64_t kLarge = (std::uint64_t{70} << 20U) + 5;
  bind();
  keep("large", 1, kLarge);
  keep("a", 1, kSize);
  EXPECT_EQ(cache_->run_maintenance(), Duration{});
  EXPECT_EQ(asked("large", kLarge), Errc::kBusy);
  EXPECT_EQ(cache_->run_maintenance(), Duration{});
  EXPECT_GT(cache_->run_maintenance(), Duration{});
  EXPECT_EQ(asked("large", kLarge), kGranted);
  EXPECT_EQ(asked("a"), kGranted);
}

// The kernel has dropped the bytes and says so when it is asked: nothing of it may have been handed
// out before, and nothing counts afterwards.
TEST_F(WriteBackTest, WhatTheDiskDidNotTakeIsNeverGranted) {
  bind();
  keep("durable", 1, kSize);
  close_epoch();
  const auto right = content_of("lost", 1, kSize);
  auto object = open("lost", 1, kSize);
  ASSERT_TRUE(fill(*object, right));
  filesystem_.lose_unwritten_data();
  EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kBusy);
  (void)cache_->run_maintenance();
  EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kCacheDead);
  EXPECT_NE(cache_->status().trouble.find("writing back"), std::string::npos);
  object.reset();
  drop();
  filesystem_.fail_next_sync(0);  // somebody else was told: there are no second tellings
  bind();
  EXPECT_EQ(served("durable", 1, kSize), kSize);
  EXPECT_EQ(served("lost", 1, kSize), 0U);
}

// One was taken in time, another was not.
TEST_F(WriteBackTest, ALossGivesTheCacheUpAndTakesNothingThatWasGranted) {
  bind();
  const auto right = content_of("taken", 1, kSize);
  const auto object = open("taken", 1, kSize);
  ASSERT_TRUE(fill(*object, right));
  (void)cache_->run_maintenance();
  keep("other", 1, kSize);
  filesystem_.lose_unwritten_data();
  EXPECT_EQ(object->open_for_passthrough().error().code(), kGranted);
  EXPECT_EQ(served_bytes(*object, right), kSize);  // as the kernel would read it
  close_epoch();
  EXPECT_FALSE(cache_->usable());
}

// The first part may have been lost without a word to the file that wrote the second.
TEST_F(WriteBackTest, AFileWrittenByTwoOpensWaitsForTheEpoch) {
  bind();
  const auto right = content_of("a", 1, kSize);
  ASSERT_TRUE(open("a", 1, kSize)->write(0, Bytes(right).first(131'072)));
  ASSERT_TRUE(fill(*open("a", 1, kSize), right));
  (void)cache_->run_maintenance();
  EXPECT_EQ(asked("a"), Errc::kBusy);
  close_epoch();
  EXPECT_EQ(asked("a"), kGranted);
}

TEST_F(WriteBackTest, WhatIsFetchedAgainIsWrittenAgain) {
  bind();
  keep("a", 1, kSize);
  (void)cache_->run_maintenance();
  const auto object = open("a", 1, kSize);
  EXPECT_EQ(object->open_for_passthrough().error().code(), kGranted);
  auto file = [&] {
    std::unique_ptr<os::File> found;
    const auto volume = volume_directory();
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
      auto opened =
          volume->open_directory(entry.name).value()->open_file("Da", os::OpenMode::kReadWrite);
      found = opened ? std::move(*opened) : std::move(found);
      return true;
    }));
    return found;
  }();
  ASSERT_TRUE(file->write_at(70'000, bytes_of("x")));
  const auto right = content_of("a", 1, kSize);
  served_bytes(*object, right);
  ASSERT_FALSE(object->complete());
  ASSERT_TRUE(fill(*object, right));
  EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kBusy);
}

// Where it is not to be had, the epoch brings it.
TEST_F(WriteBackTest, WithoutTheSystemCallTheEpochGrants) {
  testing::FaultyFilesystem faulty(filesystem_);
  cache_ = bind_cache(faulty.open_root("/").value(), faulty, options_, clock_).value();
  volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
  keep("a", 1, kSize);
  faulty.faults().fail_all(testing::FileCall::kSync, ENOSYS);
  EXPECT_GT(cache_->run_maintenance(), Duration{});
  faulty.faults().set_hook(nullptr);
  EXPECT_EQ(asked("a"), Errc::kBusy);
  close_epoch();
  EXPECT_EQ(asked("a"), kGranted);
  drop();
}

// Somebody else filled the disk: there is no room to note that a sync begins.
TEST_F(WriteBackTest, AFullDiskKeepsTheEpochOpenAndTheCacheInUse) {
  bind();
  cache_->set_caretaker([] {});  // who does not cull
  keep("large", 1, kSize);
  filesystem_.leave_free(0);
  for (int i = 0; i < 3; ++i) {
    close_epoch();
  }
  EXPECT_TRUE(cache_->usable());
  EXPECT_EQ(served("large", 1, kSize), kSize);
  filesystem_.leave_free(std::uint64_t{1} << 40U);
  close_epoch();
  withdraw();
  filesystem_.crash(testing::CrashMode::kDropUnsynced, 1);
  bind();
  EXPECT_EQ(served("large", 1, kSize), kSize) << "closed as soon as there was room";
}

}  // namespace
}  // namespace larder::cachefiles
