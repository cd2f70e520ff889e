// Whatever lies on the disk in place of an object, and whatever the disk answers: the user's bytes
// come from the server then, and from the cache again afterwards.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/label.h"
#include "cachefiles/layout.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kSmallSize = 5000;
constexpr std::uint64_t kLargeSize = 300'001;

class DamageTest : public CacheOnFake {
 protected:
  DamageTest() { set_log_level(LogLevel::kError); }

  void SetUp() override {
    bind();
    keep("small", 1, kSmallSize);
    keep("large", 1, kLargeSize);
    withdraw();
  }

  // The directory under `top` ("cache" or "maps") that holds the file of a key.
  std::unique_ptr<os::Directory> directory_of(const std::string& key, std::string_view top) {
    const auto volume = filesystem_.open_root("/")
                            .value()
                            ->open_directory(top)
                            .value()
                            ->open_directory("Ilarder,1,nfs,server,,%2fexport,0")
                            .value();
    std::unique_ptr<os::Directory> found;
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
      auto directory = volume->open_directory(entry.name).value();
      if (directory->stat("D" + key)) {
        found = std::move(directory);
      }
      return true;
    }));
    return found;
  }

  std::unique_ptr<os::File> file_of(const std::string& key, std::string_view top) {
    return directory_of(key, top)->open_file("D" + key, os::OpenMode::kReadWrite).value();
  }

  // What is served now is right; what is written then is kept again.
  void expect_recovery(std::uint64_t small, std::uint64_t large) {
    bind();
    EXPECT_EQ(served("small", 1, kSmallSize), small);
    EXPECT_EQ(served("large", 1, kLargeSize), large);
    keep("small", 1, kSmallSize);
    keep("large", 1, kLargeSize);
    EXPECT_TRUE(cache_->usable());
    withdraw();
    bind();
    EXPECT_EQ(served("small", 1, kSmallSize), kSmallSize);
    EXPECT_EQ(served("large", 1, kLargeSize), kLargeSize);
    EXPECT_EQ(cache_->status().trouble, "");
  }

  // One byte of a file that was served already.
  void expect_touch_noticed(std::uint64_t size) {
    const auto object = open("file", 1, size);
    const auto content = content_of("file", 1, size);
    EXPECT_EQ(served_bytes(*object, content), size);
    ASSERT_TRUE(file_of("file", "cache")->write_at(1000, bytes_of("x")));
    served_bytes(*object, content);
    EXPECT_FALSE(object->complete());
    EXPECT_EQ(served_bytes(*object, content), size == kSmallSize ? 0 : size - 65'536);
    ASSERT_TRUE(fill(*object, content));
    EXPECT_EQ(served_bytes(*object, content), size);
  }

  // Made anew, with a log of three records: header, present, sealed.
  void make_again(const std::string& key, std::uint64_t size) {
    bind();
    ASSERT_TRUE(volume_->discard(key));
    keep(key, 1, size);
    withdraw();
  }
};

// What a label is after it was damaged.
using Damage = std::function<std::string(const std::string&)>;

Damage set_byte(std::size_t at, char value) {
  return [=](const std::string& label) { return std::string(label).replace(at, 1, 1, value); };
}

// The masks of the bytes to change.
Damage flip_bits(std::map<std::size_t, char> masks) {
  return [masks = std::move(masks)](const std::string& label) {
    std::string damaged = label;
    for (const auto& [at, mask] : masks) {
      damaged.replace(at, 1, 1, static_cast<char>(label.at(at) ^ mask));
    }
    return damaged;
  };
}

TEST_F(DamageTest, BadLabels) {
  const std::vector<Damage> damages{
      [](const std::string&) { return std::string(); },
      [](const std::string& label) { return label.substr(0, 49); },
      [](const std::string& label) { return label + "x"; },
      set_byte(16, 2),                // type
      flip_bits({{7, 1}}),            // size
      flip_bits({{33, 1}}),           // coherency data
      set_byte(34, 0x7F),             // generation never begun
      flip_bits({{47, 8}}),           // dirty
      set_byte(48, 9),                // format
      flip_bits({{47, 1}, {17, 2}}),  // small or not
  };
  for (const auto& damage : damages) {
    for (const std::string key : {"small", "large"}) {
      const auto file = file_of(key, "cache");
      const std::string label = file->get_xattr(kLabelName, 100).value();
      ASSERT_TRUE(file->set_xattr(kLabelName, bytes_of(damage(label))));
    }
    expect_recovery(0, 0);
    withdraw();
  }
}

TEST_F(DamageTest, BackingFilesOfAnotherSize) {
  for (const std::int64_t change : {-1, 1, -4096, 70'000}) {
    for (const std::string key : {"small", "large"}) {
      const auto file = file_of(key, "cache");
      const auto size = static_cast<std::int64_t>(file->stat()->size) + change;
      ASSERT_TRUE(file->set_size(static_cast<std::uint64_t>(size)));
    }
    expect_recovery(0, 0);
    withdraw();
  }
}

TEST_F(DamageTest, DirectoriesAndMissingFilesInTheirPlaces) {
  for (const std::string_view top : {kCacheDirectory, kMapsDirectory}) {
    const auto directory = directory_of("large", top);
    ASSERT_TRUE(directory->unlink("Dlarge"));
    ASSERT_TRUE(directory->make_directory("Dlarge", 0700));
    ASSERT_TRUE(directory->open_directory("Dlarge").value()->create_file("inside", 0600));
    expect_recovery(kSmallSize, 0);
    withdraw();
    ASSERT_TRUE(directory_of("large", top)->unlink("Dlarge"));
    expect_recovery(kSmallSize, 0);
    withdraw();
  }
}

// A file where a directory of fan-out, and one where a volume should be.
TEST_F(DamageTest, FilesInThePlaceOfDirectories) {
  const auto cache = filesystem_.open_root("/").value()->open_directory("cache").value();
  ASSERT_TRUE(cache->rename("Ilarder,1,nfs,server,,%2fexport,0", *cache, "aside"));
  ASSERT_TRUE(cache->create_file("Ilarder,1,nfs,server,,%2fexport,0", 0600));
  expect_recovery(0, 0);
}

TEST_F(DamageTest, ChangedBytesAreFoundAndFetchedAgain) {
  for (const std::string key : {"small", "large"}) {
    const auto file = file_of(key, "cache");
    ASSERT_TRUE(file->write_at(4097, bytes_of("x")));
  }
  bind();
  EXPECT_EQ(served("small", 1, kSmallSize), 0U);
  // The first try finds it; what is left is served.
  {
    const auto object = open("large", 1, kLargeSize);
    const auto right = content_of("large", 1, kLargeSize);
    EXPECT_EQ(served_bytes(*object, right), 0U);  // it was one read
    EXPECT_EQ(served_bytes(*object, right), kLargeSize - 65'536);
    EXPECT_FALSE(object->complete());
    EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kInvalid);
  }
  EXPECT_EQ(cache_->status().corrupt_ranges, 2U);
  withdraw();
  expect_recovery(0, kLargeSize - 65'536);
}

// As when the disk fails to take what was written: the kernel drops it from its memory, and tells
// nobody before the next syncfs.
TEST_F(DamageTest, BytesThatWereWrittenButNeverReachedTheDiskAreNotServed) {
  bind();
  keep("small", 2, kSmallSize);
  keep("large", 2, kLargeSize);
  EXPECT_EQ(served("small", 2, kSmallSize), kSmallSize);
  const auto object = open("large", 2, kLargeSize);
  const auto right = content_of("large", 2, kLargeSize);
  EXPECT_EQ(served_bytes(*object, right), kLargeSize);
  for (const std::string key : {"small", "large"}) {
    ASSERT_TRUE(file_of(key, "cache")->write_at(4096, std::vector<std::byte>(8192)));
  }
  EXPECT_EQ(served("small", 2, kSmallSize), 0U);
  served_bytes(*object, right);
  EXPECT_EQ(served_bytes(*object, right), kLargeSize - 65'536);
}

// The kernel would read what is there without looking at checksums.
TEST_F(DamageTest, NothingIsRegisteredUnverifiedThatWasTouched) {
  bind();
  // "Not supported" is the memory's: it has no descriptors. Everything before it went well.
  EXPECT_EQ(open("large", 1, kLargeSize)->open_for_passthrough().error().code(),
            Errc::kNotSupported);
  withdraw();
  ASSERT_TRUE(file_of("large", "cache")->write_at(200'000, bytes_of("x")));
  bind();
  EXPECT_EQ(open("large", 1, kLargeSize)->open_for_passthrough().error().code(), Errc::kCorrupt);
}

// The kernel met it for somebody who reads the file past us.
TEST_F(DamageTest, WhatTheDiskFailedToGiveIsFoundAndReadAgain) {
  bind();
  const auto object = open("large", 1, kLargeSize);
  ASSERT_EQ(served_bytes(*object, content_of("large", 1, kLargeSize)), kLargeSize);
  EXPECT_EQ(object->find_failed_read(), std::nullopt);
  filesystem_.fail_to_read(file_of("large", "cache")->stat()->inode, 200'000);
  const std::optional<std::uint64_t> found = object->find_failed_read();
  ASSERT_TRUE(found);
  std::vector<std::byte> bytes(4096);
  EXPECT_EQ(object->read(*found, bytes).error().code(), Errc::kIo);
  EXPECT_FALSE(cache_->usable());
}

TEST_F(DamageTest, WhatTheDiskDoesNotGiveIsNotRegistered) {
  for (const std::uint64_t offset : {0U, 200'000U}) {
    SCOPED_TRACE(offset);
    bind();
    const std::string key = "large" + std::to_string(offset);
    keep(key, 1, kLargeSize);
    close_epoch();
    auto object = open(key, 1, kLargeSize);
    ASSERT_EQ(object->open_for_passthrough().error().code(), Errc::kNotSupported);
    filesystem_.fail_to_read(file_of(key, "cache")->stat()->inode, offset);
    EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kIo);
    EXPECT_FALSE(cache_->usable());
    object.reset();
    drop();
  }
}

// Its checksums were looked at before, or it was written in this life.
TEST_F(DamageTest, WhatIsTouchedWhileItIsInUseIsCheckedAgain) {
  for (const bool loaded : {false, true}) {
    for (const std::uint64_t size : {kSmallSize, kLargeSize}) {
      SCOPED_TRACE(size);
      make_again("file", size);
      bind();
      if (!loaded) {
        ASSERT_TRUE(volume_->discard("file"));
        keep("file", 1, size);
        close_epoch();
      }
      expect_touch_noticed(size);
      withdraw();
    }
  }
}

TEST_F(DamageTest, WhatIsTouchedWhileItIsInUseIsNotRegistered) {
  bind();
  ASSERT_TRUE(volume_->discard("large"));
  keep("large", 1, kLargeSize);
  close_epoch();
  const auto object = open("large", 1, kLargeSize);
  EXPECT_EQ(served_bytes(*object, content_of("large", 1, kLargeSize)), kLargeSize);
  EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kNotSupported);
  ASSERT_TRUE(file_of("large", "cache")->write_at(200'000, bytes_of("x")));
  EXPECT_EQ(object->open_for_passthrough().error().code(), Errc::kCorrupt);
  EXPECT_FALSE(object->complete());
}

// Between two writes of its filling, and before one of a later life.
TEST_F(DamageTest, WhatIsTouchedBeforeItIsCompleteIsNotSealed) {
  const std::uint64_t size = 3 * kMega;
  const auto content = content_of("filling", 1, size);
  const auto touch = [&] {
    ASSERT_TRUE(file_of("filling", "cache")->write_at(200'000, bytes_of("x")));
  };
  for (const bool in_a_later_life : {false, true}) {
    SCOPED_TRACE(in_a_later_life);
    bind();
    auto object = open("filling", 1, size);
    ASSERT_TRUE(object->write(0, Bytes(content).first(2 * kMega)));
    if (in_a_later_life) {
      object.reset();
      withdraw();
      touch();
      bind();
      object = open("filling", 1, size);
      EXPECT_TRUE(object->plan_read({0, size}).source == fscache::Source::kCache);
    } else {
      touch();
    }
    ASSERT_TRUE(object->write(2 * kMega, Bytes(content).subspan(2 * kMega)));
    EXPECT_EQ(object->mark_complete().error().code(), Errc::kCorrupt);
    EXPECT_FALSE(object->complete());
    EXPECT_EQ(served_bytes(*object, content), size - 65'536);
    ASSERT_TRUE(fill(*object, content));
    EXPECT_EQ(served_bytes(*object, content), size);
    object.reset();
    ASSERT_TRUE(volume_->discard("filling"));
    withdraw();
  }
}

// Its length, while it is in use.
TEST_F(DamageTest, WhatIsCutShortOrGrowsWhileItIsInUse) {
  bind();
  const auto content = content_of("large", 1, kLargeSize);
  for (const std::uint64_t size : {std::uint64_t{100'000}, kLargeSize + 5}) {
    SCOPED_TRACE(size);
    const auto object = open("large", 1, kLargeSize);
    EXPECT_EQ(served_bytes(*object, content), kLargeSize);
    ASSERT_TRUE(file_of("large", "cache")->set_size(size));
    EXPECT_EQ(served_bytes(*object, content), size < kLargeSize ? 0 : kLargeSize);
    EXPECT_NE(object->open_for_passthrough().error().code(), Errc::kNotSupported);
    ASSERT_TRUE(fill(*object, content));
    EXPECT_EQ(served_bytes(*object, content), kLargeSize);
  }
}

TEST_F(DamageTest, AfterAnUncleanBootAllIsVerifiedBeforeItIsRegistered) {
  const auto stamp = file_of("large", "cache")->stat()->modified;
  bind();
  filesystem_.crash(testing::CrashMode::kDropUnsynced, 1);
  drop();
  const auto file = file_of("large", "cache");
  ASSERT_TRUE(file->write_at(200'000, bytes_of("x")));
  ASSERT_TRUE(file->set_times(std::nullopt, stamp));  // as if nothing had been written
  bind();
  EXPECT_EQ(open("large", 1, kLargeSize)->open_for_passthrough().error().code(), Errc::kCorrupt);
}

TEST_F(DamageTest, CutAndScribbledMapLogs) {
  const std::uint64_t whole = file_of("large", "maps")->stat()->size;
  for (std::uint64_t size = 0; size <= whole; size += 50) {
    make_again("large", kLargeSize);
    const auto log = file_of("large", "maps");
    ASSERT_TRUE(log->set_size(size));
    bind();
    const std::uint64_t here = served("large", 1, kLargeSize);
    EXPECT_EQ(here, size < 256 ? 0U : kLargeSize) << size;
    keep("large", 1, kLargeSize);
    EXPECT_EQ(served("large", 1, kLargeSize), kLargeSize);
    withdraw();
  }
  for (const std::uint64_t at : {0U, 50U, 130U, 200U}) {
    make_again("large", kLargeSize);
    const auto log = file_of("large", "maps");
    ASSERT_TRUE(log->write_at(at, bytes_of("scribble")));
    bind();
    EXPECT_EQ(served("large", 1, kLargeSize), 0U);
    keep("large", 1, kLargeSize);
    withdraw();
  }
}

// A label, data and log that belong to another file must not pass for this one's.
TEST_F(DamageTest, FilesUnderAnotherName) {
  bind();
  keep("other", 1, kSmallSize);
  keep("other large", 1, kLargeSize);
  withdraw();
  const auto move = [&](const std::string& from, const std::string& to, std::string_view top) {
    const auto source = directory_of(from, top);
    const auto target = directory_of(to, top);
    ASSERT_TRUE(source->rename("D" + from, *target, "D" + to));
  };
  move("other", "small", "cache");
  bind();
  EXPECT_EQ(served("small", 1, kSmallSize), 0U);
}

class FaultTest : public DamageTest {
 protected:
  FaultTest() : faulty_(filesystem_) {}

  void bind_faulty() {
    faulty_.faults().set_hook(nullptr);
    auto bound = bind_cache(faulty_.open_root("/").value(), faulty_, options_, clock_);
    ASSERT_TRUE(bound.has_value()) << bound.error().message();
    cache_ = std::move(*bound);
    volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
  }

  // Uses the cache in every way; whatever fails, no byte is wrong.
  void use_it() {
    for (const std::string key : {"small", "large", "new small", "new large"}) {
      const std::uint64_t size = key.ends_with("small") ? kSmallSize : kLargeSize;
      auto object = volume_->open_object(describe(key, 1, size));
      if (object) {
        const auto right = content_of(key, 1, size);
        served_bytes(**object, right);
        (void)fill(**object, right);
        (*object)->note_use();
        served_bytes(**object, right);
        (void)(*object)->open_for_passthrough();
      }
    }
    auto changed = volume_->open_object(describe("large", 2, kLargeSize));
    if (changed) {
      (void)fill(**changed, content_of("large", 2, kLargeSize));
    }
    (void)volume_->discard("new small");
    (void)cache_->run_maintenance();  // writes back
    clock_.advance(std::chrono::hours(1));
    (void)cache_->run_maintenance();
    for (const std::string key : {"large", "new large"}) {
      auto object = volume_->open_object(describe(key, key == "large" ? 2 : 1, kLargeSize));
      if (object) {
        (void)(*object)->open_for_passthrough();
      }
    }
  }

  testing::FaultyFilesystem faulty_;
};

TEST_F(FaultTest, AnIoErrorGivesTheCacheUpWithASentence) {
  for (const testing::FileCall call : {testing::FileCall::kRead, testing::FileCall::kWrite,
                                       testing::FileCall::kSync, testing::FileCall::kList}) {
    bind_faulty();
    faulty_.faults().fail_all(call, EIO);
    use_it();
    if (call != testing::FileCall::kList) {
      EXPECT_FALSE(cache_->usable());
      EXPECT_NE(cache_->status().trouble.find("disk failed"), std::string::npos);
      EXPECT_EQ(volume_->open_object(describe("x", 1, 1)).error().code(), Errc::kCacheDead);
    }
    drop();
    bind();
    EXPECT_EQ(cache_->status().trouble, "");
    drop();
  }
}

// Each call in turn, with each of the errors that a disk gives.
TEST_F(FaultTest, AnyCallMayFailAndNoByteIsWrong) {
  for (const int error_number : {EIO, ENOSPC, EACCES, EMFILE, ENOENT}) {
    for (std::uint64_t k = 1;; k += 1 + k / 40) {
      bind_faulty();
      const std::uint64_t begin = faulty_.faults().calls();
      faulty_.faults().fail_at(begin + k, error_number);
      use_it();
      const std::uint64_t made = faulty_.faults().calls() - begin;
      drop();
      bind();
      for (const std::string key : {"small", "large", "new small", "new large"}) {
        (void)served(key, 1, key.ends_with("small") ? kSmallSize : kLargeSize);
      }
      drop();
      ASSERT_FALSE(HasFailure()) << "call " << k << " error " << error_number;
      if (k > made) {
        break;
      }
    }
  }
}

TEST_F(FaultTest, AFullDiskStopsFillingNotReading) {
  bind_faulty();
  faulty_.faults().fail_all(testing::FileCall::kWrite, ENOSPC);
  bool woken = false;
  cache_->set_maintenance_wake([&] { woken = true; });
  {
    const auto object = open("new", 1, kSmallSize);
    EXPECT_EQ(fill(*object, content_of("new", 1, kSmallSize)).error().code(), Errc::kNoSpace);
  }
  EXPECT_TRUE(woken);
  EXPECT_TRUE(cache_->usable());
  EXPECT_EQ(served("small", 1, kSmallSize), kSmallSize);
  EXPECT_NE(cache_->status().trouble, "");
  faulty_.faults().set_hook(nullptr);
  (void)cache_->run_maintenance();
  EXPECT_EQ(cache_->status().trouble, "");
  keep("new", 1, kSmallSize);
}

TEST_F(FaultTest, ADiskThatMayNotBeWrittenToStopsFillingNotReading) {
  for (const auto& [error_number, words] :
       std::map<int, std::string>{{EROFS, "read-only"}, {EACCES, "may not change"}}) {
    SCOPED_TRACE(words);
    bind_faulty();
    faulty_.faults().fail_all(testing::FileCall::kWrite, error_number);
    {
      const auto object = open("new", 1, kSmallSize);
      EXPECT_FALSE(fill(*object, content_of("new", 1, kSmallSize)));
    }
    EXPECT_TRUE(cache_->usable());
    EXPECT_EQ(served("small", 1, kSmallSize), kSmallSize);
    EXPECT_NE(cache_->status().trouble.find(words), std::string::npos) << cache_->status().trouble;
    faulty_.faults().set_hook(nullptr);
    (void)cache_->run_maintenance();
    (void)cache_->run_maintenance();
    EXPECT_EQ(cache_->status().trouble, "");
    keep("new", 1, kSmallSize);
    ASSERT_TRUE(volume_->discard("new"));
    drop();
  }
}

TEST_F(DamageTest, ADirectoryThatWasRemovedIsTold) {
  bind();
  bool woken = false;
  cache_->set_maintenance_wake([&] { woken = true; });
  const auto root = filesystem_.open_root("/").value();
  for (const std::string_view name : {kCacheDirectory, kMapsDirectory}) {
    ASSERT_TRUE(root->rename(name, *root, "elsewhere"));
    (void)cache_->run_maintenance();
    const std::string trouble = cache_->status().trouble;
    EXPECT_NE(trouble.find("/cache was removed"), std::string::npos) << trouble;
    ASSERT_TRUE(root->rename("elsewhere", *root, name));
    (void)cache_->run_maintenance();
    (void)cache_->run_maintenance();
    EXPECT_EQ(cache_->status().trouble, "");
  }
  EXPECT_FALSE(woken);
}

// A disk that hangs holds the threads that need it, and nobody who asks what memory knows.
TEST_F(FaultTest, AHangingDiskDoesNotHoldThePlans) {
  bind_faulty();
  const auto object = open("large", 1, kLargeSize);
  faulty_.faults().hang(testing::FileCall::kRead);
  std::thread reader([&] {
    std::vector<std::byte> bytes(kLargeSize);
    EXPECT_TRUE(object->read(0, bytes));
  });
  while (faulty_.faults().hanging() == 0) {
    std::this_thread::yield();
  }
  EXPECT_EQ(object->plan_read({0, 100}).source, fscache::Source::kCache);
  EXPECT_TRUE(object->has_everything());
  EXPECT_EQ(cache_->status().trouble, "");
  object->supersede();
  faulty_.faults().release();
  reader.join();
}

}  // namespace
}  // namespace larder::cachefiles
