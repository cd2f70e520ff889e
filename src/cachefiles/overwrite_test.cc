// Backing files that are changed in place, for who reads them past the cache.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "cachefiles/cache.h"
#include "cachefiles/cache_fixture_test.h"
#include "cachefiles/label.h"
#include "fscache/backend.h"
#include "os/filesystem.h"
#include "testing/faulty_filesystem.h"

namespace larder::cachefiles {
namespace {

constexpr std::uint64_t kHeldSize = 300'001;

class OverwriteTest : public CacheOnFake {
 protected:
  // Kept, durable, and open.
  std::unique_ptr<fscache::BackendObject> hold(std::uint64_t size = kHeldSize) {
    keep("held", 1, size);
    close_epoch();
    auto object = open("held", 1, size);
    file_ = fan_out()->open_file("Dheld", os::OpenMode::kReadWrite).value();
    return object;
  }

  std::unique_ptr<os::Directory> fan_out() {
    const auto volume = volume_directory();
    std::unique_ptr<os::Directory> found;
    EXPECT_TRUE(volume->list([&](const os::DirectoryEntry& entry) {
      found = volume->open_directory(entry.name).value();
      return !found->stat("Dheld").has_value();
    }));
    return found;
  }

  // As who has it open reads it.
  std::vector<std::byte> seen() {
    std::vector<std::byte> bytes(file_->stat()->size);
    EXPECT_EQ(file_->read_at(0, bytes).value(), bytes.size());
    return bytes;
  }

  static std::vector<std::byte> with(std::vector<std::byte> bytes, std::uint64_t offset,
                                     const std::vector<std::byte>& part) {
    bytes.resize(std::max<std::size_t>(bytes.size(), offset + part.size()));
    std::ranges::copy(part, bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    return bytes;
  }

  std::shared_ptr<os::File> file_;
};

TEST_F(OverwriteTest, ItIsSeenByWhoHasTheFileAndByNobodyElse) {
  bind();
  const auto object = hold();
  const auto old = content_of("held", 1, kHeldSize);
  const auto part = content_of("part", 1, 100'000);
  ASSERT_TRUE(object->overwrite(70'000, part));
  EXPECT_EQ(seen(), with(old, 70'000, part));
  ASSERT_TRUE(object->overwrite(kHeldSize - 5, part));
  EXPECT_EQ(seen(), with(with(old, 70'000, part), kHeldSize - 5, part));
  ASSERT_TRUE(object->resize(1234));
  EXPECT_EQ(seen(), std::vector<std::byte>(old.begin(), old.begin() + 1234));

  EXPECT_EQ(object->plan_read({0, 4096}).source, fscache::Source::kServer);
  std::vector<std::byte> into(4096);
  EXPECT_EQ(object->read(0, into).error().code(), Errc::kStale);
  EXPECT_EQ(object->write(0, old).error().code(), Errc::kStale);
  EXPECT_FALSE(object->complete());
  EXPECT_FALSE(object->open_for_passthrough());
  EXPECT_EQ(cache_->status().objects, 0U);
  EXPECT_EQ(served("held", 1, kHeldSize), 0U) << "a new object of the same version begins empty";
  EXPECT_EQ(cache_->status().corrupt_ranges, 0U);
  EXPECT_EQ(cache_->status().damaged_objects, 0U);
}

TEST_F(OverwriteTest, NothingOfItIsFoundAfterwards) {
  for (const bool killed : {false, true}) {
    bind();
    auto object = hold();
    ASSERT_TRUE(object->overwrite(0, content_of("part", 1, 70'000)));
    object.reset();
    EXPECT_EQ(served("held", 1, kHeldSize), 0U);
    if (killed) {
      drop();
    } else {
      withdraw();
    }
    bind();
    EXPECT_EQ(served("held", 1, kHeldSize), 0U);
    withdraw();
  }
}

// A crash may bring the name back.
TEST_F(OverwriteTest, TheMarkIsThereBeforeTheFirstByte) {
  testing::FaultyFilesystem faulty(filesystem_);
  auto bound = bind_cache(faulty.open_root("/").value(), faulty, options_, clock_);
  ASSERT_TRUE(bound.has_value()) << bound.error().message();
  cache_ = std::move(*bound);
  volume_ = cache_->open_volume("larder,1,nfs,server,,%2fexport,0").value();
  auto object = hold();
  faulty.faults().fail_all(testing::FileCall::kSync, ENOSPC);
  EXPECT_FALSE(object->overwrite(0, content_of("part", 1, 70'000)));
  EXPECT_FALSE(object->resize(5));
  EXPECT_EQ(seen(), content_of("held", 1, kHeldSize)) << "the disk does not know yet";
  faulty.faults().set_hook(nullptr);
  EXPECT_TRUE(object->overwrite(0, content_of("part", 1, 70'000)));
  const Result<Label> label =
      decode_label(bytes_of(file_->get_xattr(kLabelName, kLabelBytes).value()));
  ASSERT_TRUE(label.has_value());
  EXPECT_TRUE(label->dirty);
  object.reset();
  drop();
}

TEST_F(OverwriteTest, WhatGrowsIsChargedAndGivenBack) {
  bind();
  keep("beside", 1, kHeldSize);
  auto object = hold();
  const std::uint64_t before = cache_->status().used_bytes;
  ASSERT_TRUE(object->overwrite(0, content_of("part", 1, kHeldSize)));
  EXPECT_LE(cache_->status().used_bytes, before) << "the map log is gone";
  ASSERT_TRUE(object->overwrite(kHeldSize, content_of("part", 1, 5 * kMega)));
  EXPECT_GE(cache_->status().used_bytes, before + 5 * kMega - 64 * kKilo);
  ASSERT_TRUE(object->resize(100 * kMega)) << "holes take no room";
  EXPECT_LE(cache_->status().used_bytes, before + 6 * kMega);
  ASSERT_TRUE(object->overwrite(50 * kMega, content_of("part", 1, kMega)));
  EXPECT_GE(cache_->status().used_bytes, before + 6 * kMega - 64 * kKilo);
  ASSERT_TRUE(object->resize(0));
  EXPECT_LT(cache_->status().used_bytes, before);
  file_.reset();
  object.reset();
  EXPECT_LE(cache_->status().used_bytes, before - kHeldSize);
}

TEST_F(OverwriteTest, TheLimitHoldsAndLeavesTheFileAsItWas) {
  bind();
  const auto object = hold();
  ASSERT_TRUE(object->overwrite(0, content_of("part", 1, 5)));
  const auto right = seen();
  ASSERT_TRUE(object->resize(4096 * kMega));
  ASSERT_TRUE(object->resize(kHeldSize));
  std::uint64_t at = kHeldSize;
  const auto piece = content_of("piece", 1, 64 * kMega);
  Result<> put;
  while ((put = object->overwrite(at, piece))) {
    at += piece.size();
    ASSERT_LT(at, options_.limits.size_bytes * 2);
  }
  EXPECT_EQ(put.error().code(), Errc::kNoSpace);
  EXPECT_EQ(file_->stat()->size, at);
  EXPECT_LE(cache_->status().used_bytes, options_.limits.size_bytes);
  ASSERT_TRUE(object->resize(kHeldSize));
  EXPECT_EQ(seen(), right);
}

TEST_F(OverwriteTest, SmallObjectsAreNot) {
  bind();
  keep("small", 1, 5000);
  const auto object = open("small", 1, 5000);
  EXPECT_EQ(object->overwrite(0, content_of("part", 1, 5)).error().code(), Errc::kNotSupported);
  EXPECT_EQ(served_bytes(*object, content_of("small", 1, 5000)), 5000U);
}

}  // namespace
}  // namespace larder::cachefiles
