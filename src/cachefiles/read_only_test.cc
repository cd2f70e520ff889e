// A filesystem that became read-only: what is there is read, and nothing else happens.
#include <chrono>
#include <cstdint>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "cachefiles/cache_fixture_test.h"

namespace larder::cachefiles {
namespace {

class ReadOnlyTest : public CacheOnFake {
 protected:
  ReadOnlyTest() { set_log_level(LogLevel::kError); }

  void TearDown() override { set_log_level(LogLevel::kInfo); }

  // A small file, a large one, and half of another.
  void fill_and_make_read_only() {
    bind();
    keep("small", 1, kSmall);
    keep("large", 1, kLarge);
    {
      const auto half = open("half", 1, kLarge);
      ASSERT_TRUE(half->write(0, Bytes(content_of("half", 1, kLarge)).first(kLarge / 2)));
    }
    close_epoch();
    filesystem_.set_read_only(true);
  }

  static constexpr std::uint64_t kSmall = 5000;
  static constexpr std::uint64_t kLarge = 4 * kMega;
};

TEST_F(ReadOnlyTest, WhatIsThereIsRead) {
  fill_and_make_read_only();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(served("small", 1, kSmall), kSmall);
    EXPECT_EQ(served("large", 1, kLarge), kLarge);
    EXPECT_EQ(served("half", 1, kLarge), kLarge / 2);
    clock_.advance(std::chrono::minutes(10));
    (void)cache_->run_maintenance();
  }
  EXPECT_TRUE(cache_->usable());
  EXPECT_EQ(cache_->status().damaged_objects, 0U);
  EXPECT_THAT(cache_->status().trouble,
              ::testing::HasSubstr("read-only: what is in the cache is read, and nothing new is "
                                   "cached; check the filesystem (fsck)"));
}

TEST_F(ReadOnlyTest, NothingIsFilledAndAnotherVersionIsNotServed) {
  fill_and_make_read_only();
  {
    const auto half = open("half", 1, kLarge);
    EXPECT_EQ(fill(*half, content_of("half", 1, kLarge)).error().code(), Errc::kPermission);
    const auto fresh = open("new", 1, kSmall);
    EXPECT_EQ(fill(*fresh, content_of("new", 1, kSmall)).error().code(), Errc::kPermission);
  }
  close_epoch();
  EXPECT_TRUE(cache_->usable()) << "what was to be written is not, and nothing is lost by that";
  EXPECT_FALSE(volume_->open_object(describe("small", 2, kSmall)));
  EXPECT_EQ(served("half", 1, kLarge), kLarge / 2);
  EXPECT_TRUE(cache_->usable());
}

TEST_F(ReadOnlyTest, ItIsAWholeCacheAgainOnceItIsWritable) {
  fill_and_make_read_only();
  const auto held = open("half", 1, kLarge);
  EXPECT_EQ(served_bytes(*held, content_of("half", 1, kLarge)), kLarge / 2);
  filesystem_.set_read_only(false);
  (void)fill(*held, content_of("half", 1, kLarge));  // was opened to be read
  EXPECT_TRUE(cache_->usable());
  for (int i = 0; i < 3; ++i) {
    clock_.advance(std::chrono::minutes(1));
    (void)cache_->run_maintenance();
  }
  EXPECT_EQ(cache_->status().trouble, "");
  keep("new", 1, kSmall);
  EXPECT_EQ(served("new", 1, kSmall), kSmall);
  EXPECT_EQ(served("small", 2, kSmall), 0U);
}

TEST_F(ReadOnlyTest, WhatWasOpenedToBeReadIsFilledOnceItIsOpenedAnew) {
  fill_and_make_read_only();
  EXPECT_EQ(served("half", 1, kLarge), kLarge / 2);
  filesystem_.set_read_only(false);
  keep("half", 1, kLarge);
  EXPECT_EQ(served("half", 1, kLarge), kLarge);
}

}  // namespace
}  // namespace larder::cachefiles
