// The size limit on a real filesystem, by du's count, while several threads fill.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "fscache/backend.h"
#include "os/filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kLimit = 12 << 20;

std::uint64_t du(const std::string& path) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(
           path, std::filesystem::directory_options::skip_permission_denied)) {
    struct stat found{};
    if (::lstat(entry.path().c_str(), &found) == 0) {
      bytes += static_cast<std::uint64_t>(found.st_blocks) * 512;
    }
  }
  return bytes;
}

std::uint64_t size_of(std::uint64_t number) {
  switch (number % 10) {
    case 0:
      return 1'500'000 + number % 9999;
    case 1:
    case 2:
      return 100'000 + number;
    default:
      return 1 + number * 7919 % 60'000;
  }
}

class LimitTest : public ::testing::Test {
 protected:
  LimitTest() : path_(::testing::TempDir() + "larder-limit-XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    filesystem_ = os::make_posix_filesystem();
    options_.path_for_messages = path_;
    options_.limits.size_bytes = kLimit;
    options_.least_stamp_seconds = 0;
    set_log_level(LogLevel::kWarning);
  }

  void TearDown() override { std::filesystem::remove_all(path_); }

  void bind() {
    auto bound = bind_cache(filesystem_->open_root(path_).value(), *filesystem_, options_, clock_);
    ASSERT_TRUE(bound.has_value()) << bound.error().message();
    cache_ = std::move(*bound);
    volume_ = cache_->open_volume("volume").value();
  }

  // Reads what is there, fills what is not. True: it was all there.
  bool use(std::uint64_t number) {
    const std::string key = "key" + std::to_string(number);
    const std::uint64_t size = size_of(number);
    const auto right = content_of(key, 1, size);
    auto object = volume_->open_object(describe(key, 1, size));
    if (!object) {
      EXPECT_EQ(object.error().code(), Errc::kBusy);  // another thread has it
      return false;
    }
    (*object)->note_use();
    if (served_bytes(**object, right) == size) {
      return true;
    }
    const Result<> filled = fill(**object, right);
    EXPECT_TRUE(filled.has_value() || filled.error().code() == Errc::kNoSpace ||
                filled.error().code() == Errc::kInvalid)
        << filled.error().message();
    written_ += filled ? size : 0;
    return false;
  }

  std::string path_;
  std::unique_ptr<os::Filesystem> filesystem_;
  SteadyClock clock_;
  CacheOptions options_;
  std::unique_ptr<fscache::Backend> cache_;
  std::unique_ptr<fscache::BackendVolume> volume_;

  // One thread: uses five small objects of its own again and again, and others at random, until
  // twenty times the limit is written.
  void use_until_much_is_written(std::uint64_t seed, unsigned user) {
    std::mt19937_64 random(seed + user);
    for (std::uint64_t i = 0; written_ < 20 * kLimit; ++i) {
      if (i % 4 != 0) {
        (void)use(1000 + random() % 100'000);
        continue;
      }
      const bool hit = use(3 + 10 * (user * 5 + random() % 5));
      hot_hits_ += i > 100 && hit ? 1 : 0;
      hot_uses_ += i > 100 ? 1 : 0;
    }
  }

  std::atomic<std::uint64_t> written_{0};
  std::atomic<std::uint64_t> hot_hits_{0};
  std::atomic<std::uint64_t> hot_uses_{0};
};

TEST_F(LimitTest, HoldsWhileFourThreadsWriteTwentyTimesAsMuch) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  bind();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> most{0};
  std::thread maintainer([&] {
    while (!stop) {
      (void)cache_->run_maintenance();
      most = std::max(most.load(), du(path_));
    }
  });
  std::vector<std::thread> users;
  users.reserve(4);
  for (unsigned user = 0; user < 4; ++user) {
    users.emplace_back([&, user] { use_until_much_is_written(seed, user); });
  }
  for (std::thread& user : users) {
    user.join();
  }
  stop = true;
  maintainer.join();
  const auto status = cache_->status();
  most = std::max(most.load(), du(path_));
  EXPECT_LE(most, kLimit);
  EXPECT_GT(most, kLimit / 2);  // and it is used
  EXPECT_GT(status.culled_objects, 100U);
  // What is used again and again stays.
  EXPECT_GT(hot_hits_ * 10, hot_uses_ * 9) << hot_hits_ << " of " << hot_uses_;
  EXPECT_TRUE(status.trouble.empty()) << status.trouble;
  // The books agree with du.
  const std::uint64_t real = du(path_);
  EXPECT_LE(real, status.used_bytes);
  EXPECT_LE(status.used_bytes, real + real / 20 + 100'000);
  volume_.reset();
  ASSERT_TRUE(cache_->withdraw());
  cache_.reset();
  bind();
  EXPECT_EQ(cache_->status().objects, status.objects);
}

// What it costs to open, fill, close, reopen and read a small object; printed, not judged.
TEST_F(LimitTest, PrintsTheCostOfSmallObjects) {
  options_.limits.size_bytes = std::uint64_t{1} << 30U;
  bind();
  constexpr std::uint64_t kObjects = 2000;
  const auto right = content_of("x", 1, 4096);
  const auto timed = [&](const char* what, auto&& work) {
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < kObjects; ++i) {
      work("key" + std::to_string(i));
    }
    const auto spent = std::chrono::steady_clock::now() - begin;
    const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(spent).count();
    RecordProperty(what, static_cast<int>(microseconds / static_cast<long>(kObjects)));
    std::printf("%s: %.1f us\n", what,
                static_cast<double>(microseconds) / static_cast<double>(kObjects));
  };
  timed("open, write, complete, close", [&](const std::string& key) {
    const auto object = volume_->open_object(describe(key, 1, 4096)).value();
    EXPECT_TRUE(fill(*object, right));
  });
  timed("open, read, close", [&](const std::string& key) {
    const auto object = volume_->open_object(describe(key, 1, 4096)).value();
    std::vector<std::byte> got(4096);
    EXPECT_TRUE(object->read(0, got));
  });
}

}  // namespace
}  // namespace larder::cachefiles
