#include "cachefiles/cache.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "base/byte_range.h"
#include "base/bytes.h"
#include "base/error.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"

namespace larder::cachefiles {
namespace {

class CacheTest : public CacheOnFake {};

TEST_F(CacheTest, ServesAfterAShutdownWhatItKept) {
  bind();
  for (const std::uint64_t size :
       {std::uint64_t{1}, std::uint64_t{4096}, 64 * kKilo, 64 * kKilo + 1, 5 * kMega + 17}) {
    keep("f" + std::to_string(size), 1, size);
  }
  withdraw();
  bind();
  for (const std::uint64_t size :
       {std::uint64_t{1}, std::uint64_t{4096}, 64 * kKilo, 64 * kKilo + 1, 5 * kMega + 17}) {
    const std::string key = "f" + std::to_string(size);
    const auto object = open(key, 1, size);
    EXPECT_TRUE(object->has_everything()) << size;
    EXPECT_TRUE(object->complete()) << size;
    EXPECT_EQ(served_bytes(*object, content_of(key, 1, size)), size);
  }
  EXPECT_EQ(cache_->status().objects, 5U);
}

TEST_F(CacheTest, AnEmptyFileNeedsNothing) {
  bind();
  const auto object = open("empty", 1, 0);
  EXPECT_TRUE(object->has_everything());
  EXPECT_TRUE(object->mark_complete());
  EXPECT_TRUE(object->complete());
}

TEST_F(CacheTest, TheRaggedEndsOfAWriteAreLeftOut) {
  bind();
  const std::uint64_t size = 200'001;
  const auto right = content_of("ragged", 1, size);
  const auto object = open("ragged", 1, size);
  ASSERT_TRUE(object->write(100, Bytes(right).subspan(100, 10'000)));
  auto plan = object->plan_read({0, size});
  EXPECT_EQ(plan.source, fscache::Source::kServer);
  EXPECT_EQ(plan.range, (ByteRange{0, 4096}));
  plan = object->plan_read({4096, size});
  EXPECT_EQ(plan.source, fscache::Source::kCache);
  EXPECT_EQ(plan.range, (ByteRange{4096, 4096}));
  // The last unit counts as whole at the end of the file.
  ASSERT_TRUE(object->write(199'680, Bytes(right).subspan(199'680)));
  plan = object->plan_read({199'680, 321});
  EXPECT_EQ(plan.source, fscache::Source::kServer);  // 196608 to 200001 was not whole
  ASSERT_TRUE(object->write(196'608, Bytes(right).subspan(196'608)));
  plan = object->plan_read({199'680, 321});
  EXPECT_EQ(plan.source, fscache::Source::kCache);
  EXPECT_EQ(plan.range.length, 321U);
  EXPECT_FALSE(object->has_everything());
  EXPECT_EQ(object->mark_complete().error().code(), Errc::kInvalid);
}

TEST_F(CacheTest, PartsAreKeptOverALife) {
  bind();
  const std::uint64_t size = 3 * kMega;
  const auto right = content_of("parts", 1, size);
  {
    const auto object = open("parts", 1, size);
    for (std::uint64_t at = 0; at < size; at += 12 * kKilo) {
      ASSERT_TRUE(object->write(at, Bytes(right).subspan(at, std::min(4 * kKilo, size - at))));
    }
  }
  withdraw();
  bind();
  EXPECT_EQ(served("parts", 1, size), kMega);
  {
    const auto object = open("parts", 1, size);
    ASSERT_TRUE(fill(*object, right));
  }
  withdraw();
  bind();
  const auto object = open("parts", 1, size);
  EXPECT_TRUE(object->complete());
  EXPECT_EQ(served_bytes(*object, right), size);
}

TEST_F(CacheTest, AnotherVersionTakesThePlace) {
  bind();
  keep("a", 1, 100 * kKilo);
  const auto old = open("a", 1, 100 * kKilo);
  EXPECT_EQ(volume_->open_object(describe("a", 1, 100 * kKilo)).error().code(), Errc::kBusy);
  const auto fresh = open("a", 2, 50 * kKilo);
  EXPECT_EQ(served_bytes(*fresh, content_of("a", 2, 50 * kKilo)), 0U);
  EXPECT_EQ(served_bytes(*old, content_of("a", 1, 100 * kKilo)), 100 * kKilo);
  EXPECT_EQ(old->write(0, content_of("a", 1, 100 * kKilo)).error().code(), Errc::kStale);
  ASSERT_TRUE(fill(*fresh, content_of("a", 2, 50 * kKilo)));
  EXPECT_EQ(served_bytes(*old, content_of("a", 1, 100 * kKilo)), 100 * kKilo);
}

TEST_F(CacheTest, ADiscardedObjectIsGoneWhenItComesBack) {
  bind();
  keep("a", 1, kMega);
  const auto open_one = open("a", 1, kMega);
  ASSERT_TRUE(volume_->discard("a"));
  EXPECT_EQ(served_bytes(*open_one, content_of("a", 1, kMega)), kMega);
  EXPECT_EQ(served("a", 1, kMega), 0U);
  ASSERT_TRUE(volume_->discard("never was"));
}

TEST_F(CacheTest, UseIsGivenBackToTheByte) {
  bind();
  const std::uint64_t before = cache_->status().used_bytes;
  keep("small", 1, 5000);
  keep("large", 1, 5 * kMega);
  EXPECT_GE(cache_->status().used_bytes, before + 8192 + 5 * kMega);
  EXPECT_LE(cache_->status().used_bytes, before + 8192 + 5 * kMega + 64 * kKilo);
  const std::uint64_t directories = 4 * 4096 - 4096;  // two of data, one of maps
  ASSERT_TRUE(volume_->discard("small"));
  ASSERT_TRUE(volume_->discard("large"));
  EXPECT_EQ(cache_->status().used_bytes, before + directories);
  EXPECT_EQ(cache_->status().objects, 0U);
  {
    const auto object = open("dropped", 1, 5 * kMega);
    ASSERT_TRUE(object->write(0, content_of("dropped", 1, 128 * kKilo)));
    object->supersede();
  }
  EXPECT_EQ(cache_->status().used_bytes, before + directories);
}

TEST_F(CacheTest, WhatLostItsNameCountsUntilItIsClosed) {
  bind();
  {
    const auto object = open("large", 1, 5 * kMega);
    ASSERT_TRUE(fill(*object, content_of("large", 1, 5 * kMega)));
    ASSERT_TRUE(volume_->discard("large"));
    EXPECT_GE(cache_->status().used_bytes, 5 * kMega);
    EXPECT_EQ(cache_->status().objects, 0U);
  }
  EXPECT_LT(cache_->status().used_bytes, kMega);
}

// A disk on which an epoch takes long has the next one wait; the disk and the graves are looked at.
TEST_F(CacheTest, ASlowEpochDoesNotDelayOtherMaintenance) {
  bind();
  filesystem_.set_at_sync([this] { clock_.advance(std::chrono::seconds(10)); });
  keep("a", 1, 100 * kKilo);
  clock_.advance(std::chrono::minutes(5));
  (void)cache_->run_maintenance();  // closes an epoch
  keep("b", 1, 100 * kKilo);
  EXPECT_LE(cache_->run_maintenance(), std::chrono::seconds(30));
  filesystem_.set_at_sync({});
}

// After an unclean start the count must find what is there.
TEST_F(CacheTest, TheCountAgreesWithTheBooks) {
  bind();
  for (int i = 0; i < 300; ++i) {
    keep("key " + std::to_string(i), 1, 1 + static_cast<std::uint64_t>(i) * 977 % (200 * kKilo));
  }
  const auto booked = cache_->status();
  drop();
  bind();
  EXPECT_FALSE(cache_->status().objects_exact);
  EXPECT_GE(cache_->status().used_bytes, booked.used_bytes);
  const auto held = open("key 7", 1, 1 + 7 * 977);  // open while counted
  while (!cache_->status().objects_exact) {
    (void)cache_->run_maintenance();
  }
  EXPECT_EQ(cache_->status().objects, booked.objects);
  EXPECT_EQ(cache_->status().used_bytes, booked.used_bytes);
}

TEST_F(CacheTest, ASecondBindIsRefusedWithASentence) {
  bind();
  const auto second = bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code(), Errc::kUnsuitable);
  EXPECT_EQ(second.error().message(),
            "the cache /cache is in use by another keeper; name another directory, or stop that "
            "one with `larder stop`");
}

TEST_F(CacheTest, OtherDirectoriesAndFormatsAreRefusedWithASentence) {
  auto root = filesystem_.open_root("/").value();
  ASSERT_TRUE(root->create_file("precious", 0600));
  auto refused = bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Errc::kUnsuitable);
  EXPECT_NE(refused.error().context().find("precious"), std::string::npos);
  ASSERT_TRUE(root->unlink("precious"));
  bind();
  withdraw();
  auto format = root->open_file("format", os::OpenMode::kReadWrite).value();
  ASSERT_TRUE(format->write_at(0, bytes_of("larder cache 9\n")));
  refused = bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Errc::kUnsuitable);
  EXPECT_NE(refused.error().context().find("larder cache 9"), std::string::npos);
}

TEST_F(CacheTest, ASizeAboveTheFilesystemsIsRefusedAndNothingMade) {
  auto root = filesystem_.open_root("/").value();
  const os::FilesystemSpace space = root->space().value();
  options_.limits.size_bytes = space.blocks * space.block_size + 1;
  const auto refused =
      bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Errc::kUnsuitable);
  EXPECT_NE(refused.error().context().find("/cache"), std::string::npos);
  EXPECT_FALSE(root->open_file("format", os::OpenMode::kRead).has_value());
  --options_.limits.size_bytes;
  bind();
  EXPECT_EQ(cache_->status().limit_bytes, options_.limits.size_bytes);
}

TEST_F(CacheTest, SomebodysFileOfTheNameFormatIsNotOverwritten) {
  auto root = filesystem_.open_root("/").value();
  auto file = root->create_file("format", 0600).value();
  ASSERT_TRUE(file->write_at(0, bytes_of("years of work")));
  const auto refused =
      bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Errc::kUnsuitable);
  std::array<std::byte, 13> kept{};
  EXPECT_EQ(file->read_at(0, kept).value(), kept.size());
  EXPECT_EQ(std::memcmp(kept.data(), "years of work", kept.size()), 0);
}

// The first bind was cut off by a crash before its format file was whole.
TEST_F(CacheTest, AHalfWrittenFormatFileIsWrittenAgain) {
  for (const std::string& half : {std::string(), std::string("lard"), std::string(5, '\0')}) {
    auto root = filesystem_.open_root("/").value();
    auto file = root->create_file("format", 0600).value();
    ASSERT_TRUE(file->write_at(0, bytes_of(half)));
    bind();
    withdraw();
    for (const char* const name : {"format", "lock", "state"}) {
      ASSERT_TRUE(root->unlink(name)) << name;
    }
  }
}

TEST_F(CacheTest, ADiskThatFailsIsNoMistakeOfTheUsers) {
  filesystem_.cut_power_after(filesystem_.mutating_calls() + 2);
  const auto refused =
      bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().code(), Errc::kUnsuitable);
}

TEST_F(CacheTest, LimitsThatMakeNoSenseAreRefused) {
  options_.limits.blocks = {5, 7, 3};
  const auto refused =
      bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  EXPECT_EQ(refused.error().code(), Errc::kInvalid);
}

TEST_F(CacheTest, AFilesystemWithoutAttributesIsRefused) {
  filesystem_.set_user_xattrs(false);
  const auto refused =
      bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
  EXPECT_EQ(refused.error().code(), Errc::kNotSupported);
}

TEST_F(CacheTest, LongVolumeKeysAreShortenedAndKept) {
  bind();
  const std::string key = "larder,1,nfs,server,,%2f" + std::string(400, 'x') + ",0";
  auto volume = cache_->open_volume(key).value();
  auto object = volume->open_object(describe("a", 1, 100)).value();
  ASSERT_TRUE(fill(*object, content_of("a", 1, 100)));
  object.reset();
  const auto root = filesystem_.open_root("/").value();
  std::string name;
  ASSERT_TRUE(root->open_directory("meta").value()->list([&](const os::DirectoryEntry& entry) {
    name = entry.name;
    return true;
  }));
  EXPECT_EQ(name.size(), std::string("larder,1,nfs,server,,").size() + 64 + 2);
  EXPECT_TRUE(root->open_directory("cache").value()->stat("I" + name));
}

void write_and_read_parts(fscache::BackendObject& object, const std::vector<std::byte>& right,
                          unsigned seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 400; ++i) {
    const std::uint64_t at = random() % right.size();
    const std::uint64_t length = std::min<std::uint64_t>(right.size() - at, random() % 300'000);
    if (random() % 2 == 0) {
      EXPECT_TRUE(object.write(at, Bytes(right).subspan(at, length)));
      continue;
    }
    const auto plan = object.plan_read({at, length});
    std::vector<std::byte> got(plan.range.length);
    if (plan.source == fscache::Source::kCache && !got.empty()) {
      EXPECT_TRUE(object.read(at, got));
      EXPECT_TRUE(
          std::equal(got.begin(), got.end(), right.begin() + static_cast<std::ptrdiff_t>(at)));
    }
  }
}

// One thread a range, as the network delivers them; then again after a restart.
TEST_F(CacheTest, ManyThreadsFillAndReadOneObject) {
  bind();
  const std::uint64_t size = 6 * kMega + 123;
  const auto right = content_of("shared", 1, size);
  {
    const auto object = open("shared", 1, size);
    std::vector<std::thread> threads;
    threads.reserve(4);
    for (unsigned thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] { write_and_read_parts(*object, right, thread); });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    ASSERT_TRUE(fill(*object, right));
  }
  withdraw();
  bind();
  EXPECT_EQ(served("shared", 1, size), size);
}

// Descriptors are let go and come back, for the same file only.
TEST_F(CacheTest, FewDescriptorsServeManyObjects) {
  options_.most_open_files = 8;
  bind();
  std::vector<std::unique_ptr<fscache::BackendObject>> objects;
  for (int i = 0; i < 100; ++i) {
    objects.push_back(open("k" + std::to_string(i), 1, 9000));
    ASSERT_TRUE(fill(*objects.back(), content_of("k" + std::to_string(i), 1, 9000)));
  }
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 100; ++i) {
      const auto right = content_of("k" + std::to_string(i), 1, 9000);
      EXPECT_EQ(served_bytes(*objects[static_cast<std::size_t>(i)], right), 9000U);
    }
  }
  // A new version must not pull the file from under the holder of the old one.
  const auto fresh = open("k0", 2, 9000);
  EXPECT_EQ(served_bytes(*objects[0], content_of("k0", 1, 9000)), 9000U);
}

class LastUseTest : public CacheOnFake {
 protected:
  os::FileStat stat_of(const std::string& key) {
    const auto volume = volume_directory();
    os::FileStat found;
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
      const auto stat = volume->open_directory(entry.name).value()->stat("D" + key);
      found = stat ? *stat : found;
      return true;
    }));
    return found;
  }

  // For the files and for us.
  void pass(int seconds) {
    filesystem_.advance_seconds(seconds);
    clock_.advance(std::chrono::seconds(seconds));
    (void)cache_->run_maintenance();
  }
};

TEST_F(LastUseTest, WhatStaysOpenIsStampedNowAndThen) {
  bind();
  keep("held", 1, 5000);
  keep("idle", 1, 5000);
  pass(10'000);
  const auto held = open("held", 1, 5000);
  held->note_use();
  const auto idle = open("idle", 1, 5000);  // opened, and never used
  pass(100);
  const std::int64_t first = stat_of("held").accessed.seconds;
  EXPECT_GT(first, stat_of("held").modified.seconds + 10'000);
  EXPECT_EQ(stat_of("idle").accessed.seconds, stat_of("idle").modified.seconds);
  for (int i = 0; i < 5; ++i) {
    pass(10);
  }
  EXPECT_EQ(stat_of("held").accessed.seconds, first);  // not sooner than after a minute
  pass(60);
  EXPECT_GT(stat_of("held").accessed.seconds, first + 60);
}

TEST_F(LastUseTest, ManyOpenObjectsAreStampedInBatches) {
  bind();
  std::vector<std::unique_ptr<fscache::BackendObject>> objects;
  constexpr int kObjects = 600;
  for (int i = 0; i < kObjects; ++i) {
    objects.push_back(open("k" + std::to_string(i), 1, 100));
    ASSERT_TRUE(fill(*objects.back(), content_of("k", 1, 100)));
    objects.back()->note_use();
  }
  const auto stamped = [&] {
    int count = 0;
    for (int i = 0; i < kObjects; ++i) {
      const os::FileStat stat = stat_of("k" + std::to_string(i));
      count += stat.accessed.seconds > stat.modified.seconds + 60 ? 1 : 0;
    }
    return count;
  };
  pass(100);
  EXPECT_EQ(stamped(), 256);
  pass(1);
  EXPECT_EQ(stamped(), 512);
  pass(1);
  EXPECT_EQ(stamped(), kObjects);
}

// However long the state file takes: nothing has to run before the cache may be used to its limit.
TEST_F(CacheTest, ASmallOneIsFilledToItsLimitAtOnce) {
  options_.limits.size_bytes = 12 * kMega;
  options_.headroom_bytes = CacheOptions().headroom_bytes;
  bind();
  for (const char* key : {"one", "two", "three", "four", "five"}) {
    keep(key, 1, 2 * kMega);
  }
  for (const char* key : {"one", "two", "three", "four", "five"}) {
    EXPECT_EQ(served(key, 1, 2 * kMega), 2 * kMega) << key;
  }
}

}  // namespace
}  // namespace larder::cachefiles
