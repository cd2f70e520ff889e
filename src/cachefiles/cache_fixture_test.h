// What the tests of the cache share: a cache on a filesystem in memory or in a real directory.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/endian.h"
#include "base/result.h"
#include "cachefiles/cache.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/fake_filesystem.h"
#include "testing/manual_clock.h"

namespace larder::cachefiles {

inline constexpr std::uint64_t kKilo = 1024;
inline constexpr std::uint64_t kMega = 1024 * kKilo;

// The bytes that the "server" holds of a file's version: no two files and versions agree anywhere.
inline std::vector<std::byte> content_of(const std::string& key, std::uint64_t version,
                                         std::uint64_t size) {
  std::vector<std::byte> bytes(size);
  std::uint64_t x = version * 0x9E3779B97F4A7C15ULL + 1;
  for (const char c : key) {
    x = (x ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  }
  for (std::byte& byte : bytes) {
    x ^= x << 13U;
    x ^= x >> 7U;
    x ^= x << 17U;
    byte = static_cast<std::byte>(x >> 32U);
  }
  return bytes;
}

inline fscache::ObjectDescription describe(const std::string& key, std::uint64_t version,
                                           std::uint64_t size) {
  fscache::ObjectDescription description;
  description.key = key;
  description.size = size;
  store_be(description.coherency.data(), version);
  return description;
}

// Writes all of it in pieces, as the server delivers them.
inline Result<> fill(fscache::BackendObject& object, const std::vector<std::byte>& bytes,
                     std::size_t piece = kMega) {
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    const std::size_t length = std::min(piece, bytes.size() - at);
    TRY(object.write(at, Bytes(bytes).subspan(at, length)));
  }
  return object.mark_complete();
}

// Bytes that the cache serves of the file, all of which must be right; what it cannot serve counts
// as missing.
inline std::uint64_t served_bytes(fscache::BackendObject& object,
                                  const std::vector<std::byte>& right) {
  std::uint64_t served = 0;
  for (std::uint64_t at = 0; at < right.size();) {
    const fscache::ReadPlan plan = object.plan_read({at, right.size() - at});
    EXPECT_EQ(plan.range.offset, at);
    EXPECT_GT(plan.range.length, 0U);
    if (plan.source == fscache::Source::kCache) {
      std::vector<std::byte> got(plan.range.length);
      if (object.read(at, got)) {
        EXPECT_TRUE(
            std::equal(got.begin(), got.end(), right.begin() + static_cast<std::ptrdiff_t>(at)))
            << "wrong bytes at " << at;
        served += got.size();
      }
    }
    at += plan.range.length;
  }
  return served;
}

class CacheOnFake : public ::testing::Test {
 protected:
  void bind() {
    auto bound = bind_cache(filesystem_.open_root("/").value(), filesystem_, options_, clock_);
    ASSERT_TRUE(bound.has_value()) << bound.error().message();
    cache_ = std::move(*bound);
    volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
  }

  // The directory of volume_, as somebody else sees it.
  std::unique_ptr<os::Directory> volume_directory() {
    const auto root = filesystem_.open_root("/").value();
    const auto cache = root->open_directory("cache").value();
    return cache->open_directory("Ilarder,1,nfs,server,,%2fexport,0").value();
  }

  void withdraw() {
    volume_.reset();
    ASSERT_TRUE(cache_->withdraw());
    cache_.reset();
  }

  // As kill -9 of the engine.
  void drop() {
    volume_.reset();
    cache_.reset();
  }

  std::unique_ptr<fscache::BackendObject> open(const std::string& key, std::uint64_t version,
                                               std::uint64_t size) {
    auto object = volume_->open_object(describe(key, version, size));
    EXPECT_TRUE(object.has_value()) << object.error().message();
    return std::move(*object);
  }

  void keep(const std::string& key, std::uint64_t version, std::uint64_t size) {
    const auto object = open(key, version, size);
    const Result<> filled = fill(*object, content_of(key, version, size));
    ASSERT_TRUE(filled.has_value()) << filled.error().message();
  }

  std::uint64_t served(const std::string& key, std::uint64_t version, std::uint64_t size) {
    const auto object = open(key, version, size);
    return served_bytes(*object, content_of(key, version, size));
  }

  // Lets an epoch come due and close.
  void close_epoch() {
    clock_.advance(std::chrono::hours(1));
    (void)cache_->run_maintenance();
  }

  testing::FakeFilesystem filesystem_;
  testing::ManualClock clock_;
  CacheOptions options_ = [] {
    CacheOptions options;
    options.tag = "test";
    options.path_for_messages = "/cache";
    options.limits.size_bytes = 1U << 30U;
    options.headroom_bytes = 128 * kMega;  // less than the limit: there is a ceiling
    return options;
  }();
  std::unique_ptr<DirectoryCache> cache_;
  std::unique_ptr<fscache::BackendVolume> volume_;
};

}  // namespace larder::cachefiles
